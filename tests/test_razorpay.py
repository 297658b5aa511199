"""What Razorpay's webhooks say of money that goes back, and what any provider's module must say."""

import json

import pytest

from payments.ledger import handle_delivery
from payments.models import Transaction, WebhookDelivery
from payments.providers.base import Event, IncompleteEvent, Payment, load
from queues.models import Task
from tests.payment_events import body_of, deliver, nothing_happened, post, verdict

pytestmark = pytest.mark.django_db


def refund_body(event="refund.processed", amount=10000, **payment):
    """A refund with its payment, as Razorpay documents them."""
    body = json.loads(body_of(event, **payment))
    entity = {"id": "rfnd_1", "entity": "refund", "amount": amount, "payment_id": "pay_1"}
    body["payload"]["refund"] = {"entity": entity | {"status": event.partition(".")[2]}}
    return json.dumps(body).encode()


def refunded(event="refund.processed", event_id="evt_2", amount=10000, **payment):
    body = json.loads(refund_body(event, amount, **payment))
    body["payload"]["payment"]["entity"] |= payment
    return post(json.dumps(body).encode(), event_id)


def test_refunds_are_counted_by_their_payment_in_whatever_order_they_come():
    deliver()
    refunded(amount=20000, amount_refunded=30000, event_id="evt_3")
    refunded(amount=10000, amount_refunded=10000, event_id="evt_2")
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("partially_refunded", 30000)


def test_a_refund_that_failed_is_left_to_a_person():
    deliver()
    # Of the 30000 that were told, 20000 were pending.
    refunded(amount=10000, amount_refunded=30000, event_id="evt_3")
    assert verdict(refunded("refund.failed", "evt_4", 20000, amount_refunded=10000)) == "mismatch"
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("partially_refunded", 30000)
    delivery = WebhookDelivery.objects.get(verdict="mismatch")
    handle_delivery(delivery.id, accept=True, actor="someone", reason="their console says so")
    row.refresh_from_db()
    assert (row.status, row.refunded) == ("partially_refunded", 10000)
    assert Task.objects.count() == 1


def test_a_refund_that_failed_of_a_payment_that_nobody_knows_changes_nothing():
    assert verdict(refunded("refund.failed")) == "mismatch"
    assert nothing_happened()
    [flagged] = WebhookDelivery.objects.filter(WebhookDelivery.OPEN)
    assert flagged.reason == "A refund of 10000 failed: nothing is recorded of its payment"
    handle_delivery(flagged.id, accept=True, actor="someone", reason="not of this shop")
    assert nothing_happened()


@pytest.mark.parametrize(("before", "after"), [("payment.authorized", "failed"), (None, "failed")])
def test_money_that_was_never_captured_and_went_back_did_not_come(before, after):
    """Razorpay gives it back by itself, and tells so as of any refund."""
    if before:
        deliver(before)
    assert verdict(refunded(amount=50000, amount_refunded=50000, captured=False)) == "accepted"
    row = Transaction.objects.get()
    assert (row.status, row.refunded, row.paid_at) == (after, 0, None)


def test_a_second_payment_that_was_given_back_uncaptured_is_no_contradiction():
    deliver()
    second = {"id": "pay_2", "amount_refunded": 50000, "captured": False}
    assert refunded(amount=50000, **second).status_code == 200
    row = Transaction.objects.get()
    assert (row.payment_id, row.status, row.refunded) == ("pay_1", "paid", 0)
    assert not WebhookDelivery.objects.filter(WebhookDelivery.OPEN).exists()


@pytest.mark.parametrize(
    ("captured", "told"), [(False, ("failed", 0)), (True, ("refunded", 50000))]
)
def test_the_books_are_read_as_the_webhooks_are(books, captured, told):
    id = books.add("razorpay", 1, "order_1", "refunded", captured=captured)
    booked = load("razorpay").payment(id)
    assert isinstance(booked, Payment)
    assert (booked.status, booked.refunded) == told


GOOD = {"payment_id": "pay_1", "amount": 0, "currency": "INR", "status": "paid"}


@pytest.mark.parametrize("missing", ["payment_id", "amount", "currency"])
def test_an_event_of_money_names_its_payment_and_amount(missing):
    assert Event(event_id="e", event_type="t", **GOOD).claim()["order_follows"] is False
    for value in (None, "") if missing != "amount" else (None,):
        with pytest.raises(IncompleteEvent, match=f"status paid, and so it needs {missing}, too"):
            Event(event_id="e", event_type="paid", **GOOD | {missing: value})
    assert Event(event_id="e", event_type="t", **GOOD | {"status": None, missing: None})
