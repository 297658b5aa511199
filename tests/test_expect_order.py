"""Orders that are announced before their money comes, and money that nobody announced."""

import pytest

from payments import ledger
from payments.ledger import Expected, OrderError
from payments.models import Transaction, WebhookDelivery
from queues.models import Task
from tests.foreign import Refused
from tests.payment_events import deliver, verdict

pytestmark = pytest.mark.django_db


def test_an_announced_order_waits_for_its_money_and_is_told_what_differs():
    made = ledger.expect_order("order_1", 50000, "INR", "buyer@example.com")
    row = Transaction.objects.get()
    assert made == Expected(row.id, True, "created", None)
    assert (row.order_id, row.amount, row.currency) == ("order_1", 50000, "INR")
    assert (row.email, row.provider, row.status) == ("buyer@example.com", "razorpay", "created")
    assert row.expected_at is not None
    assert row.paid_at is None
    assert not Task.objects.exists()
    before = Transaction.objects.values().get()
    again = ledger.expect_order("order_1", 50000, "INR", "Buyer@Example.com")
    assert again == Expected(row.id, False, "created", None)
    other = ledger.expect_order("order_1", 49900, "USD")
    assert other.difference == (
        "amount: recorded 50000, delivered 49900; currency: recorded INR, delivered USD"
    )
    assert Transaction.objects.values().get() == before


def test_the_money_of_an_announced_order_is_not_unexpected():
    ledger.expect_order("order_1", 50000)
    assert deliver().json() == {"verdict": "accepted"}
    assert Task.objects.count() == 1


def test_money_that_nobody_announced_is_recorded_as_unexpected_and_fulfilled():
    deliver()
    assert (
        WebhookDelivery.objects.get().reason
        == "Nobody announced this order: recorded as unexpected."
    )
    row = Transaction.objects.get()
    assert (row.status, row.expected_at, row.held_at) == ("paid", None, None)
    assert Task.objects.count() == 1


@pytest.fixture
def holding(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"


@pytest.mark.parametrize("event", ["payment.captured", "refund.processed"])
def test_money_that_nobody_announced_is_held_where_that_is_set(event, holding):
    part = {"refunded": 100} if event == "refund.processed" else {}
    deliver(event, **part)
    assert (
        WebhookDelivery.objects.get().reason
        == "Nobody announced this order: held until a person releases it."
    )
    assert Transaction.objects.get().held_at is not None
    deliver("order.paid", "evt_2")
    assert not Task.objects.exists()


def test_an_announced_order_is_not_held(holding):
    ledger.expect_order("order_1", 50000)
    deliver()
    assert Transaction.objects.get().held_at is None
    assert Task.objects.count() == 1


def test_an_announcement_that_comes_late_releases_the_order(holding):
    deliver()
    made = ledger.expect_order("order_1", 50000)
    assert (made.created, made.status, made.difference) == (False, "paid", None)
    row = Transaction.objects.get()
    assert (row.held_at, row.task_id) == (None, Task.objects.get().id)
    assert row.expected_at is not None


def test_an_announcement_that_says_otherwise_releases_nothing(holding):
    deliver()
    assert ledger.expect_order("order_1", 49900).difference
    row = Transaction.objects.get()
    assert row.held_at is not None
    assert row.expected_at is None
    assert not Task.objects.exists()


def test_an_address_that_is_announced_later_counts_from_then_on():
    ledger.expect_order("order_1", 50000)
    assert ledger.expect_order("order_1", 50000, email="first@example.com").difference is None
    second = ledger.expect_order("order_1", 50000, email="second@example.com")
    assert second.difference == "email: recorded first@example.com, delivered second@example.com"
    assert verdict(deliver(email="third@example.com")) == "mismatch"


def test_an_announcement_between_two_events_keeps_the_order_from_being_held(holding):
    deliver("payment.authorized", "evt_1")
    ledger.expect_order("order_1", 50000)
    deliver("payment.captured", "evt_2")
    assert Transaction.objects.get().held_at is None
    assert Task.objects.count() == 1


BAD_ORDERS = [
    (["", 1], "order_id is a text of 1 to 500 characters"),
    (["o" * 501, 1], "order_id is a text of 1 to 500 characters"),
    (["o\x00", 1], "cannot be printed"),
    ([7, 1], "order_id is a text"),
    (["o", 1.5], "whole number of minor units"),
    (["o", True], "whole number of minor units"),
    (["o", "1"], "whole number of minor units"),
    (["o", -1], "whole number of minor units"),
    (["o", 2**53 + 1], "whole number of minor units"),
    (["o", 10**30], "0 to 2.53"),
    (["o", 1, "inr"], "currency is three capital letters"),
    (["o", 1, None], "currency is a text"),
    (["o", 1, "\ud800"], "cannot be printed"),
    (["o", 1, "INR", "e" * 321], "email is at most 320"),
    (["o", 1, "INR", 7], "email is a text"),
    (
        ["o", 1, "INR", None, "Pay Pal"],
        "There is no provider .Pay Pal.; PAYMENT_PROVIDERS has razorpay, stripe",
    ),
]


@pytest.mark.parametrize(("order", "says"), BAD_ORDERS)
def test_an_order_that_cannot_be_is_refused_with_a_sentence(order, says):
    with pytest.raises(OrderError, match=says):
        ledger.expect_order(*order)


def test_a_shops_own_server_announces_orders_in_sql(foreign):
    shop = foreign("service_role")
    [made] = shop("SELECT * FROM expect_order('order_1', 50000, p_email => 'buyer@example.com')")
    assert (made["created"], made["status"], made["difference"]) == (True, "created", None)
    [again] = shop("SELECT * FROM expect_order('order_1', 49900)")
    assert (again["id"], again["created"]) == (made["id"], False)
    assert again["difference"] == "amount: recorded 50000, delivered 49900"
    assert verdict(deliver()) == "accepted"
    assert shop.value("SELECT status FROM transactions WHERE order_id = 'order_1'") == "paid"
    with pytest.raises(Refused, match="currency is three capital letters") as refused:
        shop("SELECT * FROM expect_order('order_2', 1, 'rupees')")
    assert refused.value.sqlstate == "22023"


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("anon", "SELECT * FROM expect_order('order_1', 50000)"),
        ("authenticated", "SELECT * FROM expect_order('order_1', 50000)"),
        ("anon", "SELECT * FROM transactions"),
        ("authenticated", "SELECT * FROM webhook_deliveries"),
        ("opsconsole_worker", "SELECT * FROM transactions"),
        ("service_role", "UPDATE transactions SET status = 'paid'"),
        ("service_role", "SELECT * FROM webhook_deliveries"),
        ("service_role", "INSERT INTO fulfilments (order_id) VALUES ('order_1')"),
        ("service_role", "SELECT start_fulfilment(new_task_id(), NULL)"),
        ("service_role", "SELECT fulfil_again(new_task_id())"),
        ("service_role", "SELECT handle_delivery(new_task_id(), true, 'me', 'mine')"),
        ("service_role", "SELECT purge_deliveries('0', '0', '0')"),
        ("opsconsole_worker", "SELECT apply_event('razorpay', '{}', NULL)"),
        (
            "service_role",
            "SELECT receive_delivery('razorpay', 'webhook', 'e', 't', '{}', 'x'::bytea)",
        ),
    ],
)
def test_nobody_else_touches_the_ledger(role, statement, foreign):
    with pytest.raises(Refused, match="permission denied") as refused:
        foreign(role)(statement)
    assert refused.value.sqlstate == "42501"
