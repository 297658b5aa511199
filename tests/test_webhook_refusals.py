"""Deliveries that are refused: which, why, with what answer, and how many of them are kept."""

import io
import json
import subprocess
import time
from typing import Any

import pytest
import razorpay
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, RequestFactory

from payments import intake
from payments.models import Transaction, WebhookDelivery
from payments.providers.base import NotConfigured
from tests.conftest import database_url
from tests.payment_events import (
    BIG,
    RAZORPAY_URL,
    STRIPE_URL,
    body_of,
    deliver,
    intent,
    nothing_happened,
    post,
    sign,
    stripe_body,
    stripe_signature,
    verdicts,
)
from tests.webhook_storm import WebServer

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
    assert (delivery.verdict, delivery.signed, delivery.event_id) == ("rejected", False, None)
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
    assert (response.status_code, response.json()["verdict"]) == (200, "rejected")
    assert reason in WebhookDelivery.objects.get(WebhookDelivery.OPEN).reason
    assert nothing_happened()


BAD_FIELDS = [
    ({"amount": -1}, "amount is negative."),
    ({"amount": 500.5}, "amount is a fraction, not a whole number of minor units."),
    ({"amount": 50000.0}, "amount is a fraction, not a whole number of minor units."),
    ({"amount": True}, "amount is a boolean, not a whole number of minor units."),
    ({"amount": "50000"}, "amount is a text, not a whole number of minor units."),
    ({"amount": None}, "amount is missing."),
    ({"amount": BIG + 1}, "amount is above 2**53."),
    ({"amount": 10**300}, "amount is above 2**53."),
    ({"currency": "inr"}, "currency is not a currency code of three capital letters."),
    ({"currency": "INR\n"}, "currency is not a currency code of three capital letters."),
    ({"currency": None}, "currency is not a currency code of three capital letters."),
    ({"order": "order\x00"}, "order_id holds a character that cannot be printed."),
    ({"order": 7}, "order_id is a number, not a text."),
    ({"order": "o" * 501}, "order_id is 501 characters long; the most is 500."),
    ({"id": None}, "id is missing."),
    ({"id": ["pay_1"]}, "id is a list, not a text."),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_FIELDS)
def test_a_field_that_is_not_as_documented_is_left_to_a_person(fields, reason):
    response = deliver(**fields)
    assert (response.status_code, response.json()) == (
        200,
        {"verdict": "rejected", "reason": reason},
    )
    delivery = WebhookDelivery.objects.get(WebhookDelivery.OPEN)
    assert (delivery.verdict, delivery.signed, delivery.reason) == ("rejected", True, reason)
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
def test_a_signed_body_that_makes_no_sense_is_left_to_a_person(body):
    response = post(body)
    assert (response.status_code, response.json()["verdict"]) == (200, "rejected")
    delivery = WebhookDelivery.objects.get(WebhookDelivery.OPEN)
    assert response.json()["reason"] == delivery.reason != ""
    assert bytes(delivery.body) == body
    assert nothing_happened()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"null", "The body is null, not a JSON object."),
        (b'{"n": ' + b"9" * 5000 + b"}", "The body holds a number of too many digits."),
        (b'{"n": NaN}', "The body is not JSON: NaN is no number."),
        (b'{"event": "payment.captured"}', "payload.payment.entity is missing."),
        (b'{"event": ""}', "event is empty."),
    ],
    ids=["null", "digits", "NaN", "missing", "empty"],
)
def test_the_reason_says_what_is_wrong(body, reason):
    assert post(body).json()["reason"] == reason


@pytest.mark.parametrize("event", ["payment.captured", "order.paid"])
def test_an_order_may_have_a_name_of_500_characters(event):
    deliver(event, order="o" * 500)
    assert Transaction.objects.get().order_id == "o" * 500


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
    monkeypatch.setattr(intake, "UNREADABLE_PER_HOUR", 2)
    monkeypatch.setattr(intake, "UNSIGNED_PER_HOUR", 3)
    for _ in range(6):
        assert post(b"x" * 100_000, signature="0" * 64).status_code == 401
    assert verdicts() == ["rejected"] * 3
    assert {len(kept.body) for kept in WebhookDelivery.objects.all()} == {2048}
    # A signed one that we cannot read may be money, so strangers cannot take its place.
    answers = [post(f"not json {n}".encode()) for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2]["Retry-After"] == "30"
    assert "verdict" not in answers[2].json()
    assert verdicts() == ["rejected"] * 5


def test_an_hour_later_rejected_deliveries_are_stored_again(monkeypatch, sql):
    monkeypatch.setattr(intake, "UNSIGNED_PER_HOUR", 1)
    monkeypatch.setattr(intake, "UNREADABLE_PER_HOUR", 1)
    sent = [lambda n: post(b"x", signature="bad"), lambda n: post(f"not json {n}".encode())]
    for send in sent:
        send(1)
        send(2)
    assert verdicts() == ["rejected"] * 2
    sql("UPDATE webhook_deliveries SET received_at = received_at - interval '61 minutes'")
    for send in sent:
        send(3)
    assert verdicts() == ["rejected"] * 4


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


def test_who_sends_is_told_why_it_was_refused_and_nothing_of_the_ledger():
    told = json.loads(post(body_of(), signature="0" * 64).content)
    assert sorted(told) == ["reason", "verdict"]
    deliver()
    other = deliver(event_id="evt_2", amount=1, email="other@example.com")
    assert (other.status_code, other.json()) == (200, {"verdict": "mismatch"})
    assert "buyer@example.com" in WebhookDelivery.objects.get(verdict="mismatch").reason


@pytest.fixture
def web(transactional_db, tmp_path):
    server = WebServer(database_url(), tmp_path / "web.log")
    yield server
    server.kill()


def curl(web, url, body, *headers, kind="application/json"):
    """The status and the answer that a process gets which knows nothing of ours."""
    command = ["curl", "--silent", "--noproxy", "*", "--data-binary", "@-"]
    command += [part for given in (f"Content-Type: {kind}", *headers) for part in ("-H", given)]
    command += ["--write-out", "\n%{http_code}", f"http://127.0.0.1:{web.port}{url}"]
    done = subprocess.run(command, input=body, capture_output=True, check=True, timeout=30)
    answer, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(answer)


def signed(body, event_id="evt_1"):
    return f"X-Razorpay-Signature: {sign(body)}", f"X-Razorpay-Event-Id: {event_id}"


YEAR = 366 * 86_400
OLD = stripe_body("payment_intent.succeeded", intent())
FORM = "application/x-www-form-urlencoded"
REFUSED: dict[str, tuple[Any, ...]] = {
    "5 MB": (RAZORPAY_URL, lambda: b"x" * 5_000_000, signed, "application/json", 413, None),
    "truncated": (RAZORPAY_URL, lambda: body_of()[:-20], signed, "application/json", 200, "JSON"),
    "a form": (RAZORPAY_URL, lambda: b"amount=1&currency=INR", signed, FORM, 200, "not JSON"),
    "wrong signature": (
        RAZORPAY_URL,
        body_of,
        lambda body: signed(b"another body"),
        "application/json",
        401,
        "no secret of ours",
    ),
    "a year old": (
        STRIPE_URL,
        lambda: OLD,
        lambda body: (f"Stripe-Signature: {stripe_signature(body, at=int(time.time()) - YEAR)}",),
        "application/json",
        401,
        "older than 300 seconds",
    ),
    "negative amount": (
        RAZORPAY_URL,
        lambda: body_of(amount=-1),
        signed,
        "application/json",
        200,
        "amount is negative",
    ),
    "fractional amount": (
        RAZORPAY_URL,
        lambda: body_of(amount=1.5),
        signed,
        "application/json",
        200,
        "amount is a fraction",
    ),
}


def test_each_odd_delivery_has_its_answer_and_its_verdict(web):
    for name, (url, make, headers_of, kind, status, reason) in REFUSED.items():
        WebhookDelivery.objects.all().delete()
        body = make()
        answer = curl(web, url, body, *headers_of(body), kind=kind)
        if reason is None:
            assert answer == (status, {"error": "The body is larger than 1,048,576 bytes."}), name
            assert not WebhookDelivery.objects.exists()
            continue
        kept = WebhookDelivery.objects.get()
        assert answer == (status, {"verdict": "rejected", "reason": kept.reason}), name
        assert reason in kept.reason
        assert (kept.verdict, kept.signed) == ("rejected", status == 200), name
    assert nothing_happened()


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (RAZORPAY_URL, "405 Method Not Allowed"),
        ("/webhooks/nobody", "404 Not Found"),
        ("/payments/verify", "405 Method Not Allowed"),
        ("/payments/orders", "405 Method Not Allowed"),
    ],
)
def test_a_question_by_head_is_answered_without_a_body(url, status):
    """The web server warns of each body that it has to drop; Django's test client drops it unsaid."""
    told = []
    environ = RequestFactory().head(url).environ
    body = WSGIHandler()(environ, lambda status, headers: told.append(status))
    assert (b"".join(body), told) == (b"", [status])


def test_odd_deliveries_that_are_right_count_once(web, sql):
    """The type of the content says nothing, an order may be unknown, and a replay may be late."""
    body = body_of(order="order_unknown")
    first = curl(web, RAZORPAY_URL, body, *signed(body), kind="text/plain")
    assert first == (200, {"verdict": "accepted"})
    kept = WebhookDelivery.objects.get()
    assert kept.reason == "Nobody announced this order: recorded as unexpected."
    sql("UPDATE webhook_deliveries SET received_at = received_at - interval '366 days'")
    again = curl(web, RAZORPAY_URL, body, *signed(body))
    assert again == (200, {"verdict": "duplicate"})
    assert verdicts() == ["accepted", "duplicate"]
    row = Transaction.objects.get()
    assert (row.order_id, row.status, row.expected_at) == ("order_unknown", "paid", None)
