"""What counts as money of Stripe's, for which order, and what of it went back."""

import json

import pytest

from payments.ledger import handle_delivery
from payments.models import Transaction, WebhookDelivery
from queues.models import Task
from tests.payment_events import (
    charge,
    checkout,
    deliver_stripe,
    intent,
    post_stripe,
    refund,
    stripe_body,
    verdict,
)

pytestmark = pytest.mark.django_db


def test_an_order_that_no_event_names_yet_is_given_time_for_that():
    """Only one that tells of a payment intent without its order."""
    follows = {
        "pi_1": ("payment_intent.succeeded", intent(metadata={})),
        "pi_2": (
            "checkout.session.completed",
            checkout(client_reference_id="", payment_intent="pi_2"),
        ),
        "cs_3": (
            "checkout.session.completed",
            checkout(id="cs_3", client_reference_id=None, payment_intent=None, amount_total=0),
        ),
        "order_4": (
            "payment_intent.succeeded",
            intent(id="pi_4", metadata={"order_id": "order_4"}),
        ),
    }
    for order, (kind, thing) in follows.items():
        assert verdict(deliver_stripe(kind, thing, f"evt_{order}")) == "accepted"
    tasks = Task.objects.values_list("payload__order_id", "status")
    assert dict(tasks) == {
        "pi_1": "scheduled",
        "pi_2": "scheduled",
        "cs_3": "pending",
        "order_4": "pending",
    }


@pytest.mark.parametrize("settled", ["no_payment_required", "paid"])
def test_a_checkout_of_nothing_pays_its_order(settled):
    thing = checkout(payment_intent=None, payment_status=settled, amount_total=0)
    assert verdict(deliver_stripe("checkout.session.completed", thing)) == "accepted"
    row = Transaction.objects.get()
    assert (row.order_id, row.payment_id, row.status) == ("order_1", "cs_1", "paid")
    assert (row.amount, row.currency, row.email) == (0, "INR", "buyer@example.com")
    assert Task.objects.get().type == "payments.fulfil"


@pytest.mark.parametrize("length", [101, 500])
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("payment_intent.succeeded", lambda order: intent(metadata={"order_id": order})),
        ("checkout.session.completed", lambda order: checkout(client_reference_id=order)),
        ("charge.refunded", lambda order: charge(metadata={"order_id": order})),
    ],
)
def test_a_shop_may_give_its_orders_long_names(kind, place, length):
    order = "order " + "\u0915" * (length - 6)
    assert verdict(deliver_stripe(kind, place(order))) == "accepted"
    assert Transaction.objects.get().order_id == order


@pytest.mark.parametrize(
    ("version", "amount_refunded", "refunded", "status"),
    [
        ("2025-03-31.basil", 10000, 10000, "partially_refunded"),
        ("2025-03-31.basil", 30000, 30000, "refunded"),
        (None, 30000, 30000, "refunded"),
        # Before, the 20000 that were reserved and not captured counted as refunded.
        ("2024-10-28.acacia", 30000, 10000, "partially_refunded"),
        ("2024-10-28.acacia", 50000, 30000, "refunded"),
        ("2020-08-27", 20000, 0, "paid"),
    ],
)
def test_a_refund_is_measured_by_what_was_captured(version, amount_refunded, refunded, status):
    deliver_stripe("payment_intent.succeeded", intent(amount_received=30000), "evt_1")
    thing = charge(amount_captured=30000, captured=True, amount_refunded=amount_refunded)
    body = json.loads(stripe_body("charge.refunded", thing, "evt_2")) | {"api_version": version}
    assert verdict(post_stripe(json.dumps(body).encode())) == "accepted"
    row = Transaction.objects.get()
    assert (row.amount, row.refunded, row.status) == (30000, refunded, status)


def test_a_reservation_that_is_cancelled_brought_and_gave_back_nothing():
    deliver_stripe("payment_intent.amount_capturable_updated", intent(), "evt_1")
    thing = charge(amount_captured=None, captured=False)
    body = json.loads(stripe_body("charge.refunded", thing, "evt_2")) | {
        "api_version": "2020-08-27"
    }
    assert verdict(post_stripe(json.dumps(body).encode())) == "accepted"
    row = Transaction.objects.get()
    assert (row.status, row.refunded, row.paid_at) == ("authorized", 0, None)
    deliver_stripe("payment_intent.canceled", intent(amount_received=0), "evt_3")
    row.refresh_from_db()
    assert (row.status, row.refunded) == ("failed", 0)


TOLD = ["refund.failed", "refund.updated", "charge.refund.updated"]


@pytest.mark.parametrize("kinds", [TOLD, TOLD[::-1], TOLD[2:]], ids=["new", "reversed", "old"])
@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_refund_that_failed_is_left_to_a_person_once(kinds, status):
    deliver_stripe("payment_intent.succeeded", intent(), "evt_1")
    deliver_stripe("charge.refunded", charge(amount_refunded=30000), "evt_2")
    answers = [
        verdict(deliver_stripe(kind, refund(status=status), f"evt_{kind}")) for kind in kinds
    ]
    assert answers == ["mismatch", *["duplicate"] * (len(kinds) - 1)]
    delivery = WebhookDelivery.objects.get(verdict="mismatch")
    assert (delivery.event_id, delivery.payment_id) == ("refund.failed:re_1", "pi_1")
    handle_delivery(delivery.id, accept=True, actor="someone", reason="their console says so")
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("partially_refunded", 20000)
    assert verdict(deliver_stripe("refund.failed", refund(id="re_2"), "evt_9")) == "mismatch"
