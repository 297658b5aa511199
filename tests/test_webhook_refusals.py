"""Deliveries that are refused: which, why, with what answer, and how many of them are kept."""

import io
import json
from typing import Any

import pytest
import razorpay
from django.test import Client

from payments import intake
from payments.models import Transaction, WebhookDelivery
from payments.providers.base import NotConfigured
from tests.payment_events import (
    BIG,
    RAZORPAY_URL,
    STRIPE_URL,
    body_of,
    deliver,
    nothing_happened,
    post,
    sign,
    stripe_signature,
    verdicts,
)

pytestmark = pytest.mark.django_db


def test_razorpays_own_sdk_accepts_what_we_accept_and_refuses_what_we_refuse():
    utility = razorpay.Client(auth=("key", "key-secret")).utility
    body = body_of(email="bu\u00fcr@example.com")
    good = sign(body)
    assert utility.verify_webhook_signature(body.decode(), good, "current-secret")
    assert post(body, signature=good).status_code == 200
    bad = sign(body, "stranger")
    with pytest.raises(razorpay.errors.SignatureVerificationError):
        utility.verify_webhook_signature(body.decode(), bad, "current-secret")
    assert post(body, "evt_2", signature=bad).status_code == 401


@pytest.mark.parametrize("secret", ["current-secret", "previous-secret"])
def test_either_secret_is_good_during_rotation(secret):
    body = body_of()
    assert post(body, signature=sign(body, secret)).status_code == 200
    assert Transaction.objects.get().status == "paid"


def test_the_case_of_the_signature_does_not_matter():
    assert post(body_of(), signature=sign(body_of()).upper()).status_code == 200


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("", "missing"),
        ("0" * 64, "no secret of ours"),
        (sign(body_of(), ""), "no secret of ours"),
        (sign(b"{}"), "no secret of ours"),
        (sign(body_of())[:-1], "64 hexadecimal digits"),
        (sign(body_of()) + "\n", "64 hexadecimal digits"),
        ("sig\u00f1ature" + "\u00e9" * 55, "64 hexadecimal digits"),
        ("\u0661" * 64, "64 hexadecimal digits"),
        ("f" * 100_000, "64 hexadecimal digits"),
    ],
    ids=[
        "empty",
        "zeros",
        "no secret",
        "other body",
        "short",
        "newline",
        "latin",
        "arabic",
        "huge",
    ],
)
def test_a_bad_signature_is_refused_and_recorded(signature, reason):
    response = post(body_of(), signature=signature)
    assert response.status_code == 401
    delivery = WebhookDelivery.objects.get()
    assert (delivery.verdict, delivery.event_id) == ("rejected", None)
    assert reason in delivery.reason
    assert nothing_happened()


def test_a_missing_signature_is_refused():
    response = Client().post(RAZORPAY_URL, body_of(), content_type="application/json")
    assert response.status_code == 401
    assert verdicts() == ["rejected"]


@pytest.mark.parametrize(
    ("event_id", "reason"),
    [
        (None, "missing"),
        ("", "missing"),
        ("e" * 201, "longer than 200"),
        ("evt\x00", "not plain text"),
        ("evt\u00e9", "not plain text"),
    ],
)
def test_an_event_needs_a_usable_id(event_id, reason):
    response = post(body_of(), event_id)
    assert response.status_code == 400
    assert reason in WebhookDelivery.objects.get().reason
    assert nothing_happened()


BAD_FIELDS = [
    ({"amount": -1}, "amount is negative."),
    ({"amount": 500.5}, "amount is a fraction, not a whole number of minor units."),
    ({"amount": 50000.0}, "amount is a fraction, not a whole number of minor units."),
    ({"amount": True}, "amount is a boolean, not a whole number of minor units."),
    ({"amount": "50000"}, "amount is a text, not a whole number of minor units."),
    ({"amount": None}, "amount is missing, not a whole number of minor units."),
    ({"amount": BIG + 1}, "amount is above 2**53."),
    ({"amount": 10**300}, "amount is above 2**53."),
    ({"currency": "inr"}, "currency is not a currency code of three capital letters."),
    ({"currency": "INR\n"}, "currency is not a currency code of three capital letters."),
    ({"currency": None}, "currency is not a currency code of three capital letters."),
    ({"order": "order\x00"}, "order_id holds a character that cannot be printed."),
    ({"order": 7}, "order_id is a number, not a text."),
    ({"order": "o" * 101}, "order_id is 101 characters long; the most is 100."),
    ({"id": None}, "id is missing, not a text."),
    ({"id": ["pay_1"]}, "id is a list, not a text."),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_FIELDS)
def test_a_field_that_is_not_as_documented_is_refused(fields, reason):
    response = deliver(**fields)
    assert response.status_code == 400
    delivery = WebhookDelivery.objects.get()
    assert (delivery.verdict, delivery.reason) == ("rejected", reason)
    assert nothing_happened()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        body_of()[:-20],
        b"[]",
        b"null",
        b'"payment.captured"',
        b"\xff\xfe{}",
        b'{"event": "payment.captured\x00"}',
        b'{"event": "payment.captured\\u0000", "payload": {}}',
        b'{"event": "payment.captured", "payload": NaN}',
        b'{"event": "payment.captured"}',
        b'{"event": "payment.captured", "payload": []}',
        b'{"event": "payment.captured", "payload": {"payment": []}}',
        b'{"event": "payment.captured", "payload": {"payment": {"entity": "pay_1"}}}',
        b'{"event": 7, "payload": {}}',
        b'{"payload": {}}',
        b'{"event": "e", "deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"event": "e", "n": ' + b"9" * 5000 + b"}",
        b"amount=1&currency=INR",
        body_of("refund.processed").replace(b'"refund"', b'"reversal"'),
        body_of("refund.processed", refunded=-1),
        body_of("order.paid").replace(b'"id": "order_1"', b'"id": "order_2"'),
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_a_signed_body_that_makes_no_sense_is_refused(body):
    response = post(body)
    assert (response.status_code, response.json()["verdict"]) == (400, "rejected")
    delivery = WebhookDelivery.objects.get()
    assert delivery.reason
    assert bytes(delivery.body) == body[: 64 * 1024]
    assert nothing_happened()


@pytest.mark.parametrize("url", [RAZORPAY_URL, STRIPE_URL])
def test_a_body_over_a_mebibyte_is_refused_without_a_row(url):
    body = b"x" * 5_000_000
    headers = {"X-Razorpay-Signature": sign(body), "Stripe-Signature": stripe_signature(body)}
    response = Client().post(url, body, content_type="application/json", headers=headers)
    assert response.status_code == 413
    assert "error" in response.json()
    assert not WebhookDelivery.objects.exists()


def chunked(body):
    # As gunicorn hands a chunked body over: without a length.
    stream = io.BytesIO(body)
    environ: dict[str, Any] = {
        "CONTENT_LENGTH": "",
        "HTTP_X_RAZORPAY_SIGNATURE": sign(body),
        "HTTP_X_RAZORPAY_EVENT_ID": "evt_1",
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
    }
    return Client().post(RAZORPAY_URL, **environ), stream


def test_a_chunked_body_is_read_as_far_as_the_limit():
    response, _ = chunked(body_of())
    assert response.status_code == 200
    assert bytes(WebhookDelivery.objects.get().body) == body_of()
    response, stream = chunked(b"x" * 5_000_000)
    assert response.status_code == 413
    assert stream.tell() == 1024 * 1024 + 1
    assert WebhookDelivery.objects.count() == 1


def test_rejected_deliveries_cannot_fill_the_disk(monkeypatch):
    monkeypatch.setattr(intake, "REJECTED_PER_HOUR", 4)
    monkeypatch.setattr(intake, "UNSIGNED_PER_HOUR", 3)
    for _ in range(6):
        assert post(body_of(), signature="0" * 64).status_code == 401
    assert verdicts() == ["rejected"] * 3
    # A signed one that we cannot read may be money, so strangers cannot take its place.
    for _ in range(3):
        assert post(b"not json").status_code == 400
    assert verdicts() == ["rejected"] * 4


def test_an_hour_later_rejected_deliveries_are_stored_again(monkeypatch, sql):
    monkeypatch.setattr(intake, "REJECTED_PER_HOUR", 1)
    post(b"x", signature="bad")
    sql("UPDATE webhook_deliveries SET received_at = received_at - interval '61 minutes'")
    post(b"x", signature="bad")
    assert verdicts() == ["rejected"] * 2


@pytest.mark.django_db(transaction=True)
def test_a_burst_of_rejected_deliveries_is_bounded_exactly(at_once, monkeypatch):
    monkeypatch.setattr(intake, "UNSIGNED_PER_HOUR", 5)
    at_once(*[lambda: post(body_of(), signature="0" * 64)] * 20)
    assert verdicts() == ["rejected"] * 5


@pytest.mark.parametrize("provider", ["razorpay", "stripe"])
def test_without_a_secret_nothing_is_accepted_and_nobody_blamed(provider, settings):
    name = f"{provider.upper()}_WEBHOOK_SECRETS"
    for secrets in ([], ["", "  "]):
        setattr(settings, name, secrets)
        headers = {
            "X-Razorpay-Signature": sign(body_of(), ""),
            "X-Razorpay-Event-Id": "evt_1",
            "Stripe-Signature": stripe_signature(body_of(), ""),
        }
        response = Client().post(
            f"/webhooks/{provider}", body_of(), content_type="application/json", headers=headers
        )
        assert response.status_code == 503
        assert response["Retry-After"] == "30"
        assert "error" in response.json()
    with pytest.raises(NotConfigured, match=f"{name} is empty"):
        intake.receive(provider, b"", {})
    assert not WebhookDelivery.objects.exists()


def test_nothing_that_is_refused_is_told_more_than_why():
    told = json.loads(post(body_of(), signature="0" * 64).content)
    assert sorted(told) == ["reason", "verdict"]
