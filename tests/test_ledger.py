"""What the events of an order make of its row: forward only, and what is left to a person."""

import pytest

from payments import ledger
from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount
from queues.models import Task
from tests.payment_events import deliver, verdict

pytestmark = pytest.mark.django_db
EVENTS = {
    "authorized": ("payment.authorized", {}),
    "failed": ("payment.failed", {}),
    "paid": ("payment.captured", {}),
    "partially_refunded": ("refund.processed", {"refunded": 20000}),
    "refunded": ("refund.processed", {}),
}


def tell(status, event_id, **fields):
    event, more = EVENTS[status]
    return deliver(event, event_id, **more | fields)


def bring_to(status):
    """An announced order, brought to a state by the events that lead there."""
    ledger.expect_order("order_1", 50000)
    if status != "created":
        assert verdict(tell(status, "evt_before")) == "accepted"
    assert Transaction.objects.get().status == status


@pytest.mark.parametrize(
    ("recorded", "delivered", "answer", "then"),
    [
        ("created", "authorized", "accepted", "authorized"),
        ("created", "failed", "accepted", "failed"),
        ("created", "paid", "accepted", "paid"),
        ("created", "partially_refunded", "accepted", "partially_refunded"),
        ("created", "refunded", "accepted", "refunded"),
        ("authorized", "failed", "accepted", "failed"),
        ("authorized", "paid", "accepted", "paid"),
        ("authorized", "partially_refunded", "accepted", "partially_refunded"),
        ("authorized", "refunded", "accepted", "refunded"),
        ("failed", "authorized", "stale", "failed"),
        ("failed", "paid", "accepted", "paid"),
        ("failed", "partially_refunded", "accepted", "partially_refunded"),
        ("failed", "refunded", "accepted", "refunded"),
        ("paid", "authorized", "stale", "paid"),
        ("paid", "failed", "stale", "paid"),
        ("paid", "partially_refunded", "accepted", "partially_refunded"),
        ("paid", "refunded", "accepted", "refunded"),
        ("partially_refunded", "authorized", "stale", "partially_refunded"),
        ("partially_refunded", "failed", "stale", "partially_refunded"),
        ("partially_refunded", "paid", "accepted", "partially_refunded"),
        ("partially_refunded", "refunded", "accepted", "refunded"),
        ("refunded", "authorized", "stale", "refunded"),
        ("refunded", "failed", "stale", "refunded"),
        ("refunded", "paid", "stale", "refunded"),
        ("refunded", "partially_refunded", "stale", "refunded"),
    ],
)
def test_money_only_moves_forward(recorded, delivered, answer, then):
    bring_to(recorded)
    tasks = Task.objects.count()
    assert tasks == (recorded in ("paid", "partially_refunded"))
    response = tell(delivered, "evt_1")
    assert response.json()["verdict"] == answer
    row = Transaction.objects.get()
    assert row.status == then
    assert row.refunded == {"partially_refunded": 20000, "refunded": 50000}.get(then, 0)
    assert (row.paid_at is not None) == (then in Transaction.SETTLED)
    delivery = WebhookDelivery.objects.get(event_id="evt_1")
    assert delivery.verdict == answer
    if answer == "stale":
        words = (recorded.replace("_", " "), delivered.replace("_", " "))
        assert delivery.reason == "The order is {}; {} came too late.".format(*words)
    # One fulfilment, once the money is there and not all of it has gone back.
    assert Task.objects.count() == (tasks or then in ("paid", "partially_refunded"))
    assert (row.task_id is not None) == bool(Task.objects.count())


@pytest.mark.parametrize("status", EVENTS)
def test_the_same_news_under_another_event_id_changes_nothing(status):
    bring_to(status)
    before = Transaction.objects.values().get()
    assert verdict(tell(status, "evt_1", fee=7)) == "accepted"
    reason = WebhookDelivery.objects.get(event_id="evt_1").reason
    assert reason == f"The order is {status.replace('_', ' ')} already: nothing to do."
    assert Transaction.objects.values().get() == before


def test_paid_after_failed_keeps_the_payment_that_paid():
    deliver("payment.failed", "evt_1", id="pay_failed")
    deliver("payment.captured", "evt_2", id="pay_good")
    row = Transaction.objects.get()
    assert (row.status, row.payment_id, Task.objects.count()) == ("paid", "pay_good", 1)


def test_a_refund_before_the_payment_leaves_nothing_to_fulfil():
    deliver("refund.processed", "evt_1")
    assert verdict(deliver("payment.captured", "evt_2")) == "stale"
    assert Transaction.objects.get().status == "refunded"
    assert not Task.objects.exists()


def test_refunds_in_parts_add_up_and_a_late_one_takes_nothing_back():
    deliver("payment.captured", "evt_1")
    for number, refunded in enumerate((20000, 35000, 30000), 2):
        assert (
            verdict(deliver("refund.processed", f"evt_{number}", refunded=refunded)) == "accepted"
        )
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("partially_refunded", 35000)
    late = WebhookDelivery.objects.get(event_id="evt_4")
    assert late.reason == "The order is partially refunded already: nothing to do."
    deliver("refund.processed", "evt_5", refunded=50000)
    row.refresh_from_db()
    assert (row.status, row.refunded) == ("refunded", 50000)
    assert Task.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount", 40000, "amount: recorded 50000, delivered 40000"),
        ("currency", "USD", "currency: recorded INR, delivered USD"),
        (
            "email",
            "other@example.com",
            "email: recorded buyer@example.com, delivered other@example.com",
        ),
    ],
)
@pytest.mark.parametrize("event_id", ["evt_1", "evt_2"])
def test_other_money_for_a_known_order_is_a_mismatch(field, value, reason, event_id):
    deliver()
    before = Transaction.objects.values().get()
    assert verdict(deliver("payment.captured", event_id, **{field: value})) == "mismatch"
    assert Transaction.objects.values().get() == before
    assert Task.objects.count() == 1
    second = WebhookDelivery.objects.get(verdict="mismatch")
    used = "The event id evt_1 was used before. " if event_id == "evt_1" else ""
    assert (second.reason, second.transaction_id) == (used + reason, before["id"])
    assert second.event_id == (None if event_id == "evt_1" else "evt_2")
    assert second.claim[field] == value


def test_all_that_differs_is_told_at_once():
    ledger.expect_order("order_1", 49900, "USD", "other@example.com", "stripe")
    deliver()
    assert WebhookDelivery.objects.get().reason == (
        "provider: recorded stripe, delivered razorpay; amount: recorded 49900, delivered 50000; "
        "currency: recorded USD, delivered INR; "
        "email: recorded other@example.com, delivered buyer@example.com"
    )
    assert Transaction.objects.get().status == "created"


def test_a_replay_of_a_mismatch_is_a_duplicate():
    deliver()
    answers = [verdict(deliver("order.paid", "evt_2", amount=1)) for _ in range(2)]
    assert answers == ["mismatch", "duplicate"]


def test_an_event_id_used_again_for_another_order_is_flagged_and_moves_no_money():
    deliver()
    assert verdict(deliver(order="order_2", id="pay_2")) == "mismatch"
    assert Transaction.objects.get().order_id == "order_1"
    flagged = WebhookDelivery.objects.get(verdict="mismatch")
    assert flagged.reason == (
        "The event id evt_1 was used before. order: recorded order_1, delivered order_2; "
        "payment: recorded pay_1, delivered pay_2"
    )


def test_an_address_in_other_case_or_unknown_before_is_no_mismatch():
    deliver("payment.authorized", "evt_1", email=None)
    assert verdict(deliver("payment.captured", "evt_2", email="Buyer@Example.com")) == "accepted"
    assert verdict(deliver("order.paid", "evt_3", email="buyer@example.com")) == "accepted"
    assert Transaction.objects.get().email == "Buyer@Example.com"


@pytest.mark.parametrize("status", ["paid", "partially_refunded"])
def test_a_second_payment_of_a_paid_order_is_left_to_a_person(status):
    deliver()
    before = Transaction.objects.values().get()
    assert verdict(tell(status, "evt_2", id="pay_2")) == "mismatch"
    assert Transaction.objects.values().get() == before
    flagged = WebhookDelivery.objects.get(verdict="mismatch")
    twice = ", so the order was paid twice" if status == "paid" else ""
    assert flagged.reason == f"payment: recorded pay_1, delivered pay_2{twice}"


@pytest.mark.parametrize("announced", [True, False])
def test_a_payment_that_is_known_for_another_order_is_left_to_a_person(announced):
    deliver()
    if announced:
        ledger.expect_order("order_2", 50000)
    assert verdict(deliver("payment.captured", "evt_2", order="order_2")) == "mismatch"
    assert Task.objects.count() == 1
    reason = WebhookDelivery.objects.get(verdict="mismatch").reason
    assert reason == "payment pay_1: recorded for order order_1, delivered for order order_2"
    assert Transaction.objects.get(payment_id="pay_1").order_id == "order_1"
    assert Transaction.objects.count() == (2 if announced else 1)


def test_an_order_that_is_named_late_is_still_one_order():
    deliver("payment.captured", "evt_1", order=None)
    assert Transaction.objects.get().order_id == "pay_1"
    deliver("payment.captured", "evt_2", order="order_1")
    assert Transaction.objects.get().order_id == "order_1"
    deliver("refund.processed", "evt_3", order=None, refunded=100)
    row = Transaction.objects.get()
    assert (row.order_id, row.status, Task.objects.count()) == ("order_1", "partially_refunded", 1)


@pytest.mark.parametrize(
    ("currency", "text"), [("JPY", "JPY 50,000"), ("KWD", "KWD 50.000"), ("EUR", "EUR 500.00")]
)
def test_minor_units_are_kept_as_they_came_whatever_the_currency(currency, text):
    assert verdict(deliver(currency=currency)) == "accepted"
    row = Transaction.objects.get()
    assert (row.amount, row.currency) == (50000, currency)
    assert format_amount(row.amount, row.currency) == text


def test_a_lone_partial_refund_is_held_until_the_payment_is_told():
    tell("partially_refunded", "evt_1")
    row = Transaction.objects.get()
    assert (row.held_at is not None, row.task_id) == (True, None)
    tell("paid", "evt_2")
    row = Transaction.objects.get()
    assert (row.status, row.held_at, row.task_id is not None) == ("partially_refunded", None, True)
