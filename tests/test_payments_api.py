"""What the shop calls: POST /payments/verify with a checkout's callback, POST /payments/orders."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import razorpay
from django.db import DataError, IntegrityError, OperationalError
from django.test import Client
from structlog.testing import capture_logs

from payments import ledger
from payments.models import Transaction, WebhookDelivery
from payments.providers.base import IncompleteEvent
from queues.models import Task
from tests.payment_events import (
    checkout,
    deliver,
    deliver_stripe,
    nothing_happened,
    sign,
    verdict,
    verdicts,
)

pytestmark = pytest.mark.django_db
VERIFY, ORDERS = "/payments/verify", "/payments/orders"


def callback(order="order_1", payment="pay_1", secret="key-secret", **fields):
    """What Razorpay's checkout hands to the shop's page, signed with the key's secret."""
    return {
        "razorpay_order_id": order,
        "razorpay_payment_id": payment,
        "razorpay_signature": sign(f"{order}|{payment}".encode(), secret),
    } | fields


def verify(fields, kind="application/json", **headers):
    body = urlencode(fields) if kind != "application/json" else json.dumps(fields)
    return Client(enforce_csrf_checks=True).generic(
        "POST", VERIFY, body, content_type=kind, headers=headers
    )


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_a_callback_pays_the_announced_order(kind):
    ledger.expect_order("order_1", 50000, "INR", "buyer@example.com")
    assert razorpay.Client(auth=("key", "key-secret")).utility.verify_payment_signature(callback())
    assert verdict(verify(callback(), kind)) == "accepted"
    row = Transaction.objects.get()
    delivery = WebhookDelivery.objects.get()
    assert (row.status, row.payment_id, row.amount) == ("paid", "pay_1", 50000)
    assert (delivery.source, delivery.event_type) == ("callback", "checkout.callback")
    assert (delivery.order_id, delivery.transaction_id) == ("order_1", row.id)
    assert Task.objects.get().type == "payments.fulfil"


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_of_a_callback_only_what_it_proves_is_kept(kind, announced):
    if announced:
        ledger.expect_order("order_1", 50000, "INR", "buyer@example.com")
    verify(callback(address="1 High Street"), kind)
    kept = WebhookDelivery.objects.get()
    assert json.loads(bytes(kept.body)) == {"order_id": "order_1", "payment_id": "pay_1"}
    assert callback()["razorpay_signature"] not in json.dumps([kept.headers, kept.claim])


def test_a_browser_is_told_nothing_of_the_ledger():
    ledger.expect_order("order_1", 50000, "INR", "buyer@example.com")
    deliver()
    assert verify(callback(payment="pay_2")).json() == {"verdict": "mismatch"}
    assert verify(callback(secret="stranger")).json() == {
        "verdict": "rejected",
        "reason": "The signature was made with no secret of ours, or for another body.",
    }


@pytest.mark.parametrize("callback_first", [True, False])
def test_a_callback_and_its_webhook_are_the_same_money(callback_first):
    ledger.expect_order("order_1", 50000)
    tellers = [lambda: verify(callback()), deliver]
    answers = [verdict(tell()) for tell in (tellers if callback_first else tellers[::-1])]
    assert answers == ["accepted", "accepted"]
    row = Transaction.objects.get()
    assert (row.status, row.payment_id, row.email) in [
        ("paid", "pay_1", None),
        ("paid", "pay_1", "buyer@example.com"),
    ]
    assert Task.objects.count() == 1


def test_a_callback_that_is_repeated_is_a_duplicate_in_whatever_form():
    ledger.expect_order("order_1", 50000)
    kinds = ["application/json", "application/x-www-form-urlencoded", "application/json"]
    assert [verdict(verify(callback(), kind)) for kind in kinds] == [
        "accepted",
        "duplicate",
        "duplicate",
    ]
    assert Task.objects.count() == 1


def test_a_callback_of_a_second_payment_is_left_to_a_person():
    ledger.expect_order("order_1", 50000)
    deliver()
    assert verdict(verify(callback(payment="pay_2"))) == "mismatch"
    assert "paid twice" in WebhookDelivery.objects.get(verdict="mismatch").reason


def test_a_callback_proves_only_what_the_setting_says(settings):
    settings.PAYMENTS_CALLBACK_STATUS = "authorized"
    ledger.expect_order("order_1", 50000)
    verify(callback())
    assert Transaction.objects.get().status == "authorized"
    assert not Task.objects.exists()
    deliver()
    assert Transaction.objects.get().status == "paid"


def test_an_order_that_nobody_announced_is_not_believed_from_a_browser():
    response = verify(callback())
    assert (response.status_code, response.json()["verdict"]) == (404, "rejected")
    assert "Nobody announced the order order_1" in WebhookDelivery.objects.get().reason
    assert nothing_happened()


def test_an_order_of_another_provider_is_not_found_either():
    ledger.expect_order("order_1", 50000, provider="stripe")
    response = verify(callback())
    assert response.status_code == 404
    assert response.json()["reason"] == "The order order_1 is one of stripe, not of razorpay."
    assert Transaction.objects.get().status == "created"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (callback(secret="stranger"), 401),
        (callback(razorpay_order_id="order_2"), 401),
        (callback(razorpay_payment_id="pay_2"), 401),
        (callback(razorpay_signature=""), 401),
        (callback(razorpay_signature="\u00e9" * 64), 401),
        (callback(razorpay_signature=7), 401),
        ({}, 400),
        (callback(razorpay_order_id=""), 400),
        (callback(razorpay_order_id="o" * 501), 400),
        (callback(razorpay_payment_id="pay\x00"), 400),
        (callback(provider="stripe"), 400),
    ],
    ids=range(11),
)
def test_a_callback_that_proves_nothing_is_refused_and_recorded(fields, status):
    ledger.expect_order("order_1", 50000)
    response = verify(fields)
    assert (response.status_code, response.json()["verdict"]) == (status, "rejected")
    assert verdicts() == ["rejected"]
    assert WebhookDelivery.objects.get().source == "callback"
    assert Transaction.objects.get().status == "created"


def test_an_unknown_provider_is_not_found():
    assert verify(callback(provider="paypal")).status_code == 404
    assert not WebhookDelivery.objects.exists()


def test_without_the_keys_secret_no_callback_is_taken(settings):
    settings.RAZORPAY_KEY_SECRET = ""
    ledger.expect_order("order_1", 50000)
    response = verify(callback(secret=""))
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert not WebhookDelivery.objects.exists()


def test_what_stripe_announces_is_paid_by_its_checkout():
    ledger.expect_order("order_1", 50000, provider="stripe")
    assert deliver_stripe("checkout.session.completed", checkout()).json() == {
        "verdict": "accepted"
    }


def announce(body, token="shop-token", **headers):
    known = {"Authorization": f"Bearer {token}"} if token is not None else {}
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client(enforce_csrf_checks=True).generic(
        "POST", ORDERS, text, content_type="application/json", headers=known | headers
    )


ORDER: dict[str, Any] = {"order_id": "order_1", "amount": 50000}


def test_a_shops_server_announces_an_order():
    response = announce(ORDER | {"currency": "JPY", "email": "a@b.example", "provider": "stripe"})
    row = Transaction.objects.get()
    assert (response.status_code, response.json()) == (
        201,
        {"id": str(row.id), "status": "created", "created": True},
    )
    assert (row.amount, row.currency, row.email) == (50000, "JPY", "a@b.example")
    assert (row.provider, row.status) == ("stripe", "created")


def test_an_order_may_have_a_name_of_500_characters():
    assert announce(ORDER | {"order_id": "o" * 500, "provider": "stripe"}).status_code == 201


def test_an_order_that_is_known_is_told_with_what_differs():
    announce(ORDER)
    deliver()
    same = announce(ORDER)
    assert (same.status_code, same.json()["created"]) == (200, False)
    assert same.json()["status"] == "paid"
    other = announce(ORDER | {"amount": 49900})
    assert other.status_code == 409
    assert other.json()["difference"] == "amount: recorded 50000, delivered 49900"
    assert Transaction.objects.get().amount == 50000


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"order_id=order_1&amount=5", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not a JSON object"),
        ({"amount": 5}, "order_id is missing"),
        ({"order_id": "order_1"}, "amount is missing"),
        (ORDER | {"amonut": 5}, "unknown key 'amonut'"),
        (ORDER | {"amount": 1.5}, "whole number"),
        (ORDER | {"amount": float("nan")}, "whole number"),
        (ORDER | {"amount": -1}, "whole number"),
        (ORDER | {"amount": 10**300}, "amount is a whole number of minor units, 0 to 2^53."),
        (ORDER | {"amount": 2**63}, "amount is a whole number of minor units, 0 to 2^53."),
        (b'{"amount": ' + b"9" * 5000 + b"}", "a number of too many digits"),
        (ORDER | {"amount": "5"}, "whole number"),
        (ORDER | {"amount": None}, "whole number"),
        (ORDER | {"order_id": None}, "order_id is a text"),
        (ORDER | {"order_id": "o\x00"}, "cannot be printed"),
        (ORDER | {"email": "\ud800"}, "cannot be printed"),
        (ORDER | {"currency": "\x00"}, "cannot be printed"),
        (ORDER | {"currency": "rs"}, "three capital letters"),
        (ORDER | {"provider": "\ud800"}, "There is no provider"),
        (ORDER | {"provider": "paypal"}, "There is no provider 'paypal'"),
        (ORDER | {"order_id": "o" * 501}, "1 to 500 characters"),
    ],
    ids=range(24),
)
@pytest.mark.django_db(transaction=True)
def test_an_order_that_cannot_be_is_refused_with_a_sentence(body, says):
    response = announce(body)
    assert response.status_code == 400
    assert says in response.json()["error"]
    assert nothing_happened()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic shop-token",
        "shop-token",
        "Bearer \u00e9",
    ],
)
def test_without_a_token_nothing_is_announced(header):
    headers = {} if header is None else {"Authorization": header}
    response = announce(ORDER, None, **headers)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
    assert nothing_happened()


@pytest.mark.parametrize("tokens", [[], [""], [" "]])
def test_without_a_token_of_ours_nobody_has_one(tokens, settings):
    settings.PAYMENTS_API_TOKENS = tokens
    for given in ("", " ", "shop-token"):
        assert announce(ORDER, given).status_code == 401


def test_every_token_is_good_while_one_is_replaced(settings):
    settings.PAYMENTS_API_TOKENS = ["new", " old "]
    assert announce(ORDER, "old").status_code == 201
    assert announce(ORDER, "new").status_code == 200


@pytest.mark.parametrize("path", [VERIFY, ORDERS])
def test_a_body_that_is_too_large_is_refused(path):
    headers = {"Authorization": "Bearer shop-token"}
    response = Client().generic("POST", path, b"x" * 5_000_000, headers=headers)
    assert response.status_code == 413
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize("path", [VERIFY, ORDERS])
@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_other_methods_are_refused(path, method):
    response = getattr(Client(), method)(path)
    assert (response.status_code, response["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"not json"),
        ("application/json", b"[]"),
        ("application/json", b"\xff"),
        ("application/x-www-form-urlencoded", b"razorpay_order_id=\xff"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("", b""),
    ],
)
def test_a_callback_that_cannot_be_read_is_refused(kind, body):
    assert Client().generic("POST", VERIFY, body, content_type=kind).status_code == 400
    assert not WebhookDelivery.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", [VERIFY, ORDERS])
def test_a_database_that_fails_is_told_as_503_without_what_it_says(path, sql):
    ledger.expect_order("order_1", 50000)
    sql("ALTER TABLE transactions RENAME TO hidden")
    try:
        with capture_logs() as logs:
            response = verify(callback()) if path == VERIFY else announce(ORDER)
    finally:
        sql("ALTER TABLE hidden RENAME TO transactions")
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert "transactions" not in response.content.decode()
    [told] = [log for log in logs if log["log_level"] == "error"]
    assert 'relation "transactions" does not exist' in told["reason"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OperationalError("the connection is lost\nDETAIL: a@b.example"), "the connection is lost"),
        (IntegrityError('violates "orders_once"\nDETAIL: a@b.example'), 'violates "orders_once"'),
        (DataError('invalid input syntax for type bigint: "a@b.example"'), ""),
        (KeyError("a@b.example"), ""),
        (IncompleteEvent("it needs payment_id"), "it needs payment_id"),
    ],
)
def test_the_log_of_a_failure_quotes_no_value(error, reason, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(ledger, "expect_order", lambda **given: fail())
    with capture_logs() as logs:
        assert announce(ORDER).status_code == 503
    [told] = logs
    assert (told["error"], told["reason"]) == (type(error).__name__, reason)
    assert "a@b.example" not in json.dumps(told)
