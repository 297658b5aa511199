"""Many payments of one order, and payments whose order is named late: which of them count."""

import pytest

from payments import ledger
from payments.ledger import ActRefused
from payments.models import Fulfilment, OrderPayment, Transaction, WebhookDelivery
from queues.models import Task
from tests.payment_events import charge, checkout, deliver, deliver_stripe, intent, verdict

pytestmark = pytest.mark.django_db


def attempts():
    return dict(OrderPayment.objects.values_list("payment_id", "status"))


def open_deliveries():
    return WebhookDelivery.objects.filter(WebhookDelivery.OPEN)


def accept(delivery):
    return ledger.handle_delivery(delivery.id, accept=True, actor="asha", reason="looked at it")


@pytest.mark.parametrize("order", [("authorized", "failed"), ("failed", "authorized")])
def test_an_order_is_authorized_while_one_of_its_payments_is(order):
    payments = {"authorized": "pay_good", "failed": "pay_bad"}
    for status in order:
        assert verdict(deliver(f"payment.{status}", f"evt_{status}", id=payments[status]))
    row = Transaction.objects.get()
    assert (row.status, row.payment_id) == ("authorized", "pay_good")
    assert attempts() == {"pay_good": "authorized", "pay_bad": "failed"}
    assert verdict(deliver("payment.failed", "evt_3", id="pay_good")) == "accepted"
    assert Transaction.objects.get().status == "failed"


def test_an_authorization_that_comes_after_its_own_failure_is_late_whatever_else_failed():
    deliver("payment.failed", "evt_1", id="pay_0")
    deliver("payment.failed", "evt_2", id="pay_1")
    assert verdict(deliver("payment.authorized", "evt_3", id="pay_0")) == "stale"
    assert verdict(deliver("payment.authorized", "evt_4", id="pay_2")) == "accepted"
    row = Transaction.objects.get()
    assert (row.status, row.payment_id) == ("authorized", "pay_2")


@pytest.mark.parametrize("attempt", ["failed", "authorized"])
@pytest.mark.parametrize("announced", [True, False])
def test_what_an_attempt_said_does_not_stand_in_the_way_of_the_payment(attempt, announced):
    if announced:
        ledger.expect_order("order_1", 50000)
        tried = {"email": "typo@example.com"}
    else:
        tried = {"email": "typo@example.com", "amount": 49900, "currency": "USD"}
    assert verdict(deliver(f"payment.{attempt}", "evt_1", id="pay_0", **tried)) == "accepted"
    assert verdict(deliver("payment.captured", "evt_2")) == "accepted"
    row = Transaction.objects.get()
    assert (row.status, row.amount, row.currency) == ("paid", 50000, "INR")
    assert (row.email, row.payment_id) == ("buyer@example.com", "pay_1")


def test_the_announced_address_is_the_one_that_counts():
    ledger.expect_order("order_1", 50000, email=" Buyer@example.com ")
    assert verdict(deliver("payment.failed", "evt_1", id="pay_0", email="x@y.z")) == "accepted"
    assert Transaction.objects.get().email == "Buyer@example.com"
    assert verdict(deliver("payment.captured", "evt_2", email="x@y.z")) == "mismatch"
    accept(open_deliveries().get())
    row = Transaction.objects.get()
    assert (row.status, row.email, row.expected_email) == ("paid", "x@y.z", "x@y.z")


def test_an_announcement_replaces_what_only_an_attempt_said():
    deliver("payment.failed", "evt_1", id="pay_0", amount=1)
    made = ledger.expect_order("order_1", 50000, email="buyer@example.com")
    assert (made.created, made.difference) == (False, None)
    assert verdict(deliver("payment.captured", "evt_2")) == "accepted"
    assert Transaction.objects.get().amount == 50000


def test_a_known_attempt_leads_its_later_events_to_the_order():
    deliver("payment.authorized", "evt_1", id="pay_0")
    deliver("payment.authorized", "evt_2", id="pay_1")
    assert verdict(deliver("payment.captured", "evt_3", id="pay_0", order=None)) == "accepted"
    row = Transaction.objects.get()
    assert (row.order_id, row.status, row.payment_id) == ("order_1", "paid", "pay_0")
    assert Task.objects.count() == 1


def test_a_second_payment_that_goes_back_in_full_needs_nobody_any_more():
    deliver()
    deliver("payment.captured", "evt_2", id="pay_2")
    assert open_deliveries().count() == 1
    before = Transaction.objects.values().get()
    assert verdict(deliver("refund.processed", "evt_3", id="pay_2")) == "accepted"
    assert Transaction.objects.values().get() == before
    assert not open_deliveries().exists()
    handled = WebhookDelivery.objects.get(verdict="mismatch")
    assert handled.handling == "the payment was refunded in full"
    assert verdict(deliver("order.paid", "evt_4", id="pay_2")) == "stale"


@pytest.mark.parametrize("fulfilled", [True, False])
def test_a_person_may_say_that_an_order_was_paid_again_after_its_refund(fulfilled, sql):
    deliver()
    first = Transaction.objects.get().task_id
    if fulfilled:
        sql("UPDATE transactions SET fulfilled_at = now()")
    sql("SELECT cancel_tasks(%s)", [first])
    deliver("refund.processed", "evt_2")
    assert verdict(deliver("payment.captured", "evt_3", id="pay_2", amount=60000)) == "mismatch"
    accept(open_deliveries().get())
    row = Transaction.objects.get()
    assert (row.status, row.payment_id, row.refunded) == ("paid", "pay_2", 0)
    assert row.amount == 60000
    # What was given once is not given again by itself.
    assert (row.task_id == first) is fulfilled
    assert Task.objects.count() == (1 if fulfilled else 2)


def nameless(**fields):
    return deliver_stripe("payment_intent.succeeded", intent(metadata={}, **fields), "evt_1")


def naming(**fields):
    return deliver_stripe("checkout.session.completed", checkout(**fields), "evt_2")


def test_money_that_is_named_late_waits_a_moment_for_its_name():
    assert verdict(nameless()) == "accepted"
    row, task = Transaction.objects.get(), Task.objects.get()
    assert (row.order_id, row.task_id, task.status) == ("pi_1", task.id, "scheduled")
    wait = (task.run_at - task.created_at).total_seconds()
    assert 119 < wait < 121


@pytest.mark.parametrize("announced", [True, False])
def test_money_that_is_named_late_becomes_the_money_of_its_order(announced):
    if announced:
        ledger.expect_order("order_1", 50000, "INR", "buyer@example.com", "stripe")
    nameless()
    assert verdict(naming()) == "accepted"
    row = Transaction.objects.get()
    assert (row.order_id, row.status, row.payment_id) == ("order_1", "paid", "pi_1")
    assert (row.expected_at is not None) is announced
    assert row.task_id == Task.objects.get().id
    trail = WebhookDelivery.objects.values_list("transaction_id", flat=True)
    assert set(trail) == {row.id}


def test_an_order_that_was_tried_before_keeps_its_attempts_when_its_money_is_named():
    ledger.expect_order("order_1", 50000, "INR", None, "stripe")
    deliver_stripe("payment_intent.payment_failed", intent(id="pi_0"), "evt_0")
    nameless()
    naming()
    row = Transaction.objects.get()
    assert (row.status, row.payment_id) == ("paid", "pi_1")
    assert attempts() == {"pi_0": "failed", "pi_1": "paid"}
    assert set(WebhookDelivery.objects.values_list("transaction_id", flat=True)) == {row.id}


def test_money_that_was_fulfilled_before_it_was_named_is_not_fulfilled_again(sql):
    ledger.expect_order("order_1", 50000, "INR", None, "stripe")
    nameless()
    row = Transaction.objects.get(order_id="pi_1")
    Fulfilment.objects.create(order_id="pi_1", transaction=row, task_id=row.task_id)
    sql("UPDATE transactions SET fulfilled_at = now() WHERE id = %s", row.id)
    naming()
    row = Transaction.objects.get()
    assert (row.order_id, row.fulfilled_at is not None) == ("order_1", True)
    assert Fulfilment.objects.get().order_id == "order_1"
    assert Task.objects.count() == 1


def test_money_named_for_an_order_of_another_amount_is_folded_when_a_person_accepts_it():
    ledger.expect_order("order_1", 60000, "INR", None, "stripe")
    nameless()
    assert verdict(naming()) == "mismatch"
    assert Transaction.objects.count() == 2
    flagged = open_deliveries().get()
    assert flagged.reason == "amount: recorded 60000, delivered 50000"
    accept(flagged)
    row = Transaction.objects.get()
    assert (row.order_id, row.amount, row.status) == ("order_1", 50000, "paid")
    assert Task.objects.count() == 1


def test_money_held_for_want_of_a_name_is_fulfilled_once_its_announced_order_is_named(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    ledger.expect_order("order_1", 50000, "INR", None, "stripe")
    nameless()
    assert Transaction.objects.get(order_id="pi_1").held_at is not None
    naming()
    row = Transaction.objects.get()
    assert (row.held_at, row.task_id) == (None, Task.objects.get().id)


def test_money_named_for_an_order_that_was_paid_otherwise_is_left_to_a_person():
    deliver_stripe("payment_intent.succeeded", intent(id="pi_0"), "evt_0")
    nameless()
    assert verdict(naming()) == "mismatch"
    flagged = open_deliveries().get()
    assert flagged.reason == "payment: recorded pi_0, delivered pi_1, so the order was paid twice"
    with pytest.raises(ActRefused, match="paid twice"):
        accept(flagged)
    orders = dict(Transaction.objects.values_list("order_id", "payment_id"))
    assert orders == {"order_1": "pi_0", "pi_1": "pi_1"}


def test_a_refund_that_failed_is_taken_back_by_a_person():
    deliver()
    deliver("refund.processed", "evt_2", refunded=20000)
    deliver("refund.processed", "evt_3", refunded=50000)
    assert verdict(deliver("refund.failed", "evt_4", refunded=30000)) == "mismatch"
    flagged = open_deliveries().get()
    assert flagged.reason == (
        "A refund of 30000 failed: recorded as refunded 50000, left by that 20000"
    )
    accept(flagged)
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("partially_refunded", 20000)
    assert attempts() == {"pay_1": "partially_refunded"}


@pytest.mark.parametrize("counted_first", [True, False])
def test_a_refund_that_failed_is_a_persons_in_whichever_order_it_is_told(counted_first):
    deliver()
    news = [("refund.processed", "evt_2"), ("refund.failed", "evt_3")]
    for event, event_id in news if counted_first else reversed(news):
        deliver(event, event_id)
    assert open_deliveries().count() == (1 if counted_first else 2)
    failed = WebhookDelivery.objects.get(event_type="refund.failed")
    accept(failed)
    assert Transaction.objects.get().status == "paid"
    # The news of the refund, once more under another event id, takes nothing back by itself.
    assert verdict(deliver("refund.processed", "evt_4")) == "duplicate"
    assert verdict(deliver("refund.processed", "evt_5", fee=7)) == "mismatch"
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("paid", 0)


def test_a_failed_refund_of_a_second_payment_stays_open():
    deliver()
    deliver("payment.captured", "evt_2", id="pay_2")
    deliver("refund.processed", "evt_3", id="pay_2")
    assert not open_deliveries().exists()
    deliver("refund.failed", "evt_4", id="pay_2")
    with pytest.raises(ActRefused, match="another payment pays the order"):
        accept(open_deliveries().get())
    assert open_deliveries().exists()
    assert attempts() == {"pay_1": "paid", "pay_2": "refunded"}


@pytest.mark.parametrize("status", ["payment_failed", "amount_capturable_updated"])
@pytest.mark.parametrize("fulfilled", [True, False])
def test_an_attempt_that_is_named_late_leaves_the_paid_order_alone(status, fulfilled, sql):
    ledger.expect_order("order_1", 50000, "INR", None, "stripe")
    deliver_stripe("payment_intent.succeeded", intent(id="pi_card"), "evt_0")
    row = Transaction.objects.get()
    if fulfilled:
        Fulfilment.objects.create(order_id="order_1", transaction=row, task_id=row.task_id)
    before = Transaction.objects.values().get()
    deliver_stripe(f"payment_intent.{status}", intent(id="pi_debit", metadata={}), "evt_1")
    answer = deliver_stripe(f"payment_intent.{status}", intent(id="pi_debit"), "evt_2")
    assert verdict(answer) == "stale"
    assert Transaction.objects.values().get() == before
    assert set(attempts()) == {"pi_card", "pi_debit"}


def test_a_failed_attempt_that_is_named_late_does_not_end_an_authorized_one():
    ledger.expect_order("order_1", 50000, "INR", None, "stripe")
    deliver_stripe("payment_intent.amount_capturable_updated", intent(id="pi_0"), "evt_0")
    failed = intent(metadata={})
    deliver_stripe("payment_intent.payment_failed", failed, "evt_1")
    deliver_stripe("payment_intent.payment_failed", intent(), "evt_2")
    row = Transaction.objects.get()
    assert (row.status, row.payment_id) == ("authorized", "pi_0")


def test_money_of_another_amount_is_not_fulfilled_by_its_nameless_news():
    ledger.expect_order("order_1", 60000, "INR", None, "stripe")
    assert verdict(naming()) == "mismatch"
    assert verdict(nameless()) == "mismatch"
    assert not Task.objects.exists()
    assert Transaction.objects.get().status == "created"
    assert attempts() == {"pi_1": "created"}


@pytest.mark.parametrize("named_first", [True, False])
def test_a_second_payment_is_not_fulfilled_by_its_nameless_news(named_first):
    deliver_stripe("payment_intent.succeeded", intent(id="pi_0"), "evt_0")
    for tell in (naming, nameless) if named_first else (nameless, naming):
        tell()
    order = Transaction.objects.get(order_id="order_1")
    unheld = Transaction.objects.filter(held_at=None).values_list("order_id", flat=True)
    assert list(unheld) == ["order_1"]
    assert (order.status, order.payment_id) == ("paid", "pi_0")
    assert open_deliveries().exists()
    refund = charge(payment_intent="pi_1", metadata={"order_id": "order_1"})
    assert verdict(deliver_stripe("charge.refunded", refund, "evt_3")) == "accepted"
    assert not open_deliveries().exists()
    assert attempts() == {"pi_0": "paid", "pi_1": "refunded"}
    assert Transaction.objects.values().get(order_id="order_1")["status"] == "paid"


def test_money_that_is_held_for_its_name_is_released_by_a_person():
    deliver_stripe("payment_intent.succeeded", intent(id="pi_0"), "evt_0")
    nameless()
    naming()
    held = Transaction.objects.get(order_id="pi_1")
    assert held.held_at is not None
    task_id = ledger.fulfil_again(held.id, actor="asha", reason="it is another order after all")
    held.refresh_from_db()
    assert (held.held_at, held.task_id) == (None, task_id)


def test_accepting_what_was_said_of_a_payment_that_went_back_makes_it_count_no_more():
    deliver()
    deliver("order.paid", "evt_2", email="other@example.com")
    deliver("refund.processed", "evt_3")
    deliver("payment.captured", "evt_4", id="pay_2")
    old, again = open_deliveries().order_by("id")
    accept(again)
    with pytest.raises(ActRefused, match="recorded pay_2, delivered pay_1"):
        accept(old)
    row = Transaction.objects.get()
    assert (row.status, row.payment_id) == ("paid", "pay_2")


@pytest.mark.parametrize("intent_first", [True, False])
def test_the_buyers_address_is_kept_whoever_tells_it_first(intent_first):
    ledger.expect_order("order_1", 50000, "INR", None, "stripe")
    deliver_stripe(
        "payment_intent.payment_failed", intent(id="pi_0", receipt_email="x@y.z"), "evt_0"
    )
    told = [
        ("payment_intent.succeeded", intent(receipt_email=None), "evt_1"),
        ("checkout.session.completed", checkout(), "evt_2"),
    ]
    for news in told if intent_first else reversed(told):
        assert verdict(deliver_stripe(*news)) == "accepted"
    assert Transaction.objects.get().email == "buyer@example.com"


def test_a_person_may_say_whose_an_attempt_was_that_paid_another_order():
    ledger.expect_order("order_1", 50000)
    ledger.expect_order("order_2", 50000)
    deliver("payment.failed", "evt_1")
    assert verdict(deliver("payment.captured", "evt_2", order="order_2")) == "mismatch"
    accept(open_deliveries().get())
    rows = dict(Transaction.objects.values_list("order_id", "status"))
    assert rows == {"order_1": "failed", "order_2": "paid"}
    assert Task.objects.count() == 1


def test_an_authorization_that_comes_after_a_partial_capture_is_old_news():
    deliver("payment.captured", "evt_1", amount=30000)
    assert verdict(deliver("payment.authorized", "evt_2", amount=50000)) == "stale"
    assert Transaction.objects.get().amount == 30000


def test_a_refund_that_failed_and_is_not_recorded_moves_no_money():
    deliver()
    before = Transaction.objects.values().get()
    assert verdict(deliver("refund.failed", "evt_2", refunded=30000)) == "mismatch"
    accept(open_deliveries().get())
    assert Transaction.objects.values().get() == before
