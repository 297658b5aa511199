"""Stripe's webhooks, signed by Stripe's own SDK."""

import json
import time

import pytest
import stripe

from payments.models import Transaction, WebhookDelivery
from payments.providers.base import BadSignature
from payments.providers.stripe import Stripe
from queues.models import Task
from tests.payment_events import (
    BIG,
    charge,
    checkout,
    deliver_stripe,
    intent,
    nothing_happened,
    post_stripe,
    refund,
    stripe_body,
    stripe_signature,
    verdict,
    verdicts,
)

pytestmark = pytest.mark.django_db
BODY = stripe_body("payment_intent.succeeded", intent())


def test_a_payment_is_recorded_and_its_fulfilment_enqueued():
    assert verdict(post_stripe(BODY)) == "accepted"
    row = Transaction.objects.get()
    delivery = WebhookDelivery.objects.get()
    assert (row.provider, row.order_id, row.payment_id) == ("stripe", "order_1", "pi_1")
    assert (row.amount, row.currency, row.status) == (50000, "INR", "paid")
    assert row.email == "buyer@example.com"
    assert (delivery.event_id, delivery.event_type) == ("evt_1", "payment_intent.succeeded")
    assert Task.objects.get().correlation_id == str(delivery.id)
    assert "stripe-signature" not in delivery.headers


@pytest.mark.parametrize("age", [0, -290, 300, 86_400])
@pytest.mark.parametrize("secret", ["whsec_current", "whsec_previous"])
def test_either_secret_is_good_and_so_is_a_time_that_is_not_long_past(age, secret):
    header = stripe_signature(BODY, secret, int(time.time()) + age)
    assert stripe.Webhook.construct_event(BODY, header, secret).id == "evt_1"
    assert verdict(post_stripe(BODY, header)) == "accepted"


def refused_by_both(header, body=BODY):
    # A TypeError is what the SDK says to a signature that is not ASCII.
    with pytest.raises((stripe.SignatureVerificationError, TypeError)):
        stripe.Webhook.construct_event(body, header, "whsec_current")
    return post_stripe(body, header)


@pytest.mark.parametrize("age", [302, 366 * 86_400])
def test_a_signature_that_is_old_is_a_replay(age):
    response = refused_by_both(stripe_signature(BODY, at=int(time.time()) - age))
    assert response.status_code == 401
    assert "older than 300 seconds" in WebhookDelivery.objects.get().reason
    assert nothing_happened()


def test_how_old_it_may_be_is_a_setting(settings):
    settings.STRIPE_TOLERANCE_SECONDS = 1000
    assert (
        verdict(post_stripe(BODY, stripe_signature(BODY, at=int(time.time()) - 900))) == "accepted"
    )


def both(body, *secrets):
    """The header while a secret is rotated: one time, a v1 of each secret."""
    now = int(time.time())
    parts = [stripe_signature(body, secret, now).partition(",")[2] for secret in secrets]
    return ",".join([f"t={now}", *parts])


@pytest.mark.parametrize(
    ("secrets", "more"),
    [
        (["whsec_stranger", "whsec_current"], ""),
        (["whsec_previous", "whsec_stranger"], ""),
        (["whsec_current"], ",v0=" + "0" * 64),
        (["whsec_current"], ",v1=short,nonsense,"),
    ],
)
def test_one_of_several_signatures_is_enough(secrets, more):
    assert verdict(post_stripe(BODY, both(BODY, *secrets) + more)) == "accepted"


NOW = int(time.time())
GOOD = stripe_signature(BODY, at=NOW).partition("v1=")[2]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "missing"),
        ("nonsense", "no time t"),
        (f"v1={GOOD}", "no time t"),
        (f"t=,v1={GOOD}", "no time t"),
        (f"t=now,v1={GOOD}", "no time t"),
        (f"t=-1,v1={GOOD}", "no time t"),
        (f"t=\u0661\u0662,v1={GOOD}", "no time t"),
        (f"t={'9' * 5000},v1={GOOD}", "no time t"),
        (f"t={NOW}", "no signature v1"),
        (f"t={NOW},v1=", "no signature v1"),
        (f"t={NOW},v0={GOOD}", "no signature v1"),
        (f"t={NOW},v1={GOOD.upper()}", "no signature v1"),
        (f"t={NOW},v1=" + "\u00e9" * 64, "no signature v1"),
        (f"t={NOW},v1={'0' * 64}", "no secret of ours"),
        (f"t={NOW + 1},v1={GOOD}", "no secret of ours"),
        (f"t={NOW}," + ",".join(["v1=" + "0" * 64] * 5000), "no secret of ours"),
        (both(BODY, "whsec_stranger"), "no secret of ours"),
        (both(BODY.replace(b"50000", b"50001"), "whsec_current"), "no secret of ours"),
    ],
    ids=range(18),
)
def test_a_header_that_proves_nothing_is_refused_and_recorded(header, reason):
    response = refused_by_both(header)
    assert response.status_code == 401
    delivery = WebhookDelivery.objects.get()
    assert (delivery.verdict, delivery.event_id) == ("rejected", None)
    assert reason in delivery.reason
    assert nothing_happened()


def test_two_times_in_a_header_are_refused():
    assert post_stripe(BODY, f"t=1,{stripe_signature(BODY)}").status_code == 401
    assert nothing_happened()


def test_verification_needs_no_database(django_assert_num_queries):
    with django_assert_num_queries(0), pytest.raises(BadSignature):
        Stripe().verify(BODY, {"stripe-signature": stripe_signature(BODY)}, ["whsec_other"])


@pytest.mark.parametrize(
    ("kind", "thing", "status"),
    [
        ("payment_intent.succeeded", intent(), "paid"),
        ("payment_intent.amount_capturable_updated", intent(), "authorized"),
        ("payment_intent.payment_failed", intent(amount_received=0), "failed"),
        ("payment_intent.canceled", intent(amount_received=0), "failed"),
        ("checkout.session.completed", checkout(), "paid"),
        ("checkout.session.async_payment_succeeded", checkout(), "paid"),
        ("checkout.session.async_payment_failed", checkout(payment_status="unpaid"), "failed"),
        ("charge.refunded", charge(metadata={"order_id": "order_1"}), "refunded"),
        (
            "charge.refunded",
            charge(metadata={"order_id": "order_1"}, amount_refunded=1),
            "partially_refunded",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_event_says_what_became_of_the_money(kind, thing, status):
    assert verdict(deliver_stripe(kind, thing)) == "accepted"
    row = Transaction.objects.get()
    assert (row.order_id, row.payment_id, row.status) == ("order_1", "pi_1", status)
    assert (row.amount, row.currency) == (50000, "INR")
    assert row.refunded == {"refunded": 50000, "partially_refunded": 1}.get(status, 0)
    # A refund alone does not say that the order was never fulfilled: a person decides.
    assert Task.objects.count() == (status == "paid")
    assert (row.held_at is not None) == (status == "partially_refunded")


def test_a_paid_checkout_that_names_no_payment_is_shown_to_a_person():
    subscription = checkout(payment_intent=None, mode="subscription")
    assert verdict(deliver_stripe("checkout.session.completed", subscription)) == "rejected"
    shown = WebhookDelivery.objects.get(WebhookDelivery.OPEN)
    assert "paid without a payment intent" in shown.reason
    assert not Transaction.objects.exists()


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("checkout.session.completed", checkout(payment_status="unpaid")),
        ("checkout.session.completed", checkout(payment_status="no_payment_required")),
        (
            "checkout.session.completed",
            checkout(
                payment_intent=None,
                payment_status="no_payment_required",
                mode="setup",
                amount_total=None,
                currency=None,
            ),
        ),
        (
            "checkout.session.completed",
            checkout(payment_intent=None, payment_status="unpaid", amount_total=0),
        ),
        ("checkout.session.expired", checkout(payment_status="unpaid")),
        ("payment_intent.created", intent()),
        ("customer.created", {"id": "cus_1", "metadata": {"order_id": ["strange"]}}),
        ("refund.created", refund(status="pending")),
        ("refund.updated", refund(status="succeeded")),
        ("charge.refund.updated", refund(status="requires_action")),
        ("refund.failed", refund(payment_intent=None, charge=None)),
    ],
)
def test_what_moves_no_money_is_recorded_only(kind, thing):
    assert verdict(deliver_stripe(kind, thing)) == "accepted"
    delivery = WebhookDelivery.objects.get()
    assert delivery.event_type == kind
    assert delivery.reason
    assert nothing_happened()


def test_what_was_received_counts_not_what_was_asked():
    deliver_stripe("payment_intent.succeeded", intent(amount=60000))
    assert Transaction.objects.get().amount == 50000


def test_a_checkout_and_its_payment_are_the_same_money():
    assert verdict(deliver_stripe("checkout.session.completed", checkout(), "evt_1")) == "accepted"
    assert verdict(deliver_stripe("payment_intent.succeeded", intent(), "evt_2")) == "accepted"
    assert Transaction.objects.count() == Task.objects.count() == 1
    assert WebhookDelivery.objects.get(event_id="evt_2").reason.endswith("already: nothing to do.")


@pytest.mark.parametrize("first", ["payment_intent.succeeded", "checkout.session.completed"])
def test_a_payment_without_an_order_is_of_the_order_that_its_checkout_names(first):
    """The shop gave client_reference_id alone, which the payment intent does not repeat."""
    told = {
        "payment_intent.succeeded": intent(metadata={}),
        "checkout.session.completed": checkout(),
    }
    second = next(kind for kind in told if kind != first)
    assert verdict(deliver_stripe(first, told[first], "evt_1")) == "accepted"
    assert verdict(deliver_stripe(second, told[second], "evt_2")) == "accepted"
    row = Transaction.objects.get()
    assert (row.order_id, row.payment_id, row.status) == ("order_1", "pi_1", "paid")
    assert Task.objects.count() == 1
    # A refund names the payment intent alone.
    assert verdict(deliver_stripe("charge.refunded", charge(), "evt_3")) == "accepted"
    row.refresh_from_db()
    assert (row.order_id, row.status, row.refunded) == ("order_1", "refunded", 50000)


def test_metadata_names_the_order_before_the_reference_does():
    deliver_stripe(
        "checkout.session.completed", checkout(metadata={"order_id": "order_7"}, mode="payment")
    )
    assert Transaction.objects.get().order_id == "order_7"


def test_an_address_comes_from_wherever_the_checkout_has_one():
    thing = checkout(customer_details=None, customer_email="other@example.com")
    deliver_stripe("checkout.session.completed", thing)
    assert Transaction.objects.get().email == "other@example.com"


def test_a_replay_does_nothing():
    assert [verdict(post_stripe(BODY)) for _ in range(3)] == ["accepted", "duplicate", "duplicate"]
    assert Transaction.objects.count() == Task.objects.count() == 1


def test_the_same_event_id_of_two_providers_are_two_events():
    WebhookDelivery.objects.create(
        provider="razorpay", event_id="evt_1", verdict="accepted", body=b""
    )
    assert verdict(post_stripe(BODY)) == "accepted"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BODY[:-10], "not JSON"),
        (b"[]", "a list, not a JSON object"),
        (b"x" * 1000, "not JSON"),
        (json.dumps({"id": "evt_1", "type": "charge.refunded"}).encode(), "data.object is missing"),
        (stripe_body("charge.refunded", charge(), ""), "id is empty"),
        (stripe_body("charge.refunded", charge(), "e" * 201), "id is 201 characters"),
        (stripe_body("payment_intent.succeeded", intent(amount_received=1.5)), "a fraction"),
        (stripe_body("payment_intent.succeeded", intent(amount_received=-1)), "negative"),
        (stripe_body("payment_intent.succeeded", intent(amount_received=BIG + 1)), "above 2**53"),
        (stripe_body("payment_intent.succeeded", intent(amount_received=True)), "a boolean"),
        (stripe_body("payment_intent.succeeded", intent(currency=None)), "currency"),
        (stripe_body("payment_intent.succeeded", intent(currency="rupee")), "currency"),
        (stripe_body("payment_intent.succeeded", intent(id=7)), "id is a number"),
        (stripe_body("payment_intent.succeeded", intent(metadata={"order_id": 7})), "order_id"),
        (stripe_body("checkout.session.completed", checkout(amount_total=None)), "amount_total"),
        (stripe_body("checkout.session.completed", checkout(payment_intent={})), "payment_intent"),
        (stripe_body("charge.refunded", charge(amount_refunded="1")), "amount_refunded is a text"),
        (stripe_body("charge.refunded", charge(payment_intent=None, id=None)), "id is missing"),
        (stripe_body("charge.refunded", charge(amount_captured=-1)), "amount_captured is negative"),
        (
            stripe_body("charge.refunded", charge(metadata={"order_id": "o" * 501})),
            "501 characters",
        ),
        (stripe_body("refund.failed", refund(amount=None)), "amount is missing"),
        (stripe_body("refund.failed", refund(id=None)), "id is missing"),
    ],
    ids=range(22),
)
def test_a_signed_body_that_makes_no_sense_is_left_to_a_person(body, reason):
    response = post_stripe(body)
    assert (response.status_code, response.json()["verdict"]) == (200, "rejected")
    assert reason in WebhookDelivery.objects.get(WebhookDelivery.OPEN).reason
    assert verdicts() == ["rejected"]
    assert nothing_happened()
