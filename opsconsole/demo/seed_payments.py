"""The demo's orders: announced, paid by signed deliveries through the real intake, and some of which
a person must look at."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from django.conf import settings

from payments import intake, ledger

ORDERS = 24


def seed() -> None:
    """Most orders are paid as announced; the others show what else can happen."""
    for n in range(1, ORDERS + 1):
        ledger.expect_order(_order(n), _price(n), "INR", _email(n))
        _captured(n)
    # Told twice: nothing happens. Refunded in part. Failed at first, and paid at the second attempt.
    _captured(1)
    _razorpay("refund.processed", 3, refunded=20_000)
    n = ORDERS + 1
    ledger.expect_order(_order(n), _price(n), "INR", _email(n))
    _razorpay("payment.failed", n, id=f"pay_demo{n:04}_first")
    _captured(n)
    # Announced, and not paid yet.
    ledger.expect_order(_order(n + 1), _price(n + 1), "INR", _email(n + 1))
    # Paid otherwise than announced: a mismatch, for a person.
    ledger.expect_order(_order(n + 2), _price(n + 2), "INR", _email(n + 2))
    _razorpay("payment.captured", n + 2, amount=_price(n + 2) - 10_000)
    # Announced by nobody: held, where PAYMENTS_UNEXPECTED says so.
    _captured(n + 3)
    if settings.STRIPE_WEBHOOK_SECRETS:
        for n, (amount, currency) in enumerate([(4_900, "USD"), (12_000, "JPY"), (7_500, "KWD")]):
            order_id = f"order_abroad{n + 1:04}"
            ledger.expect_order(order_id, amount, currency, provider="stripe")
            _stripe(n + 1, order_id, amount, currency)


def _order(n: int) -> str:
    return f"order_demo{n:04}"


def _price(n: int) -> int:
    return 49_900 + 1_000 * n


def _email(n: int) -> str:
    return f"customer{n}@example.com"


def _captured(n: int) -> None:
    _razorpay("payment.captured", n)


def _razorpay(kind: str, n: int, refunded: int = 0, **fields: Any) -> None:
    payment = {
        "id": f"pay_demo{n:04}",
        "entity": "payment",
        "amount": _price(n),
        "currency": "INR",
        "order_id": _order(n),
        "email": _email(n),
        "amount_refunded": refunded,
        "notes": [],
    } | fields
    payload = {"payment": {"entity": payment}}
    if refunded:
        refund = {"id": f"rfnd_demo{n:04}", "payment_id": payment["id"], "amount": refunded}
        payload["refund"] = {"entity": refund}
    event = {"entity": "event", "event": kind, "contains": list(payload), "payload": payload}
    body = json.dumps(event | {"created_at": 1_700_000_000 + n}).encode()
    _receive(
        "razorpay",
        body,
        {
            "X-Razorpay-Signature": _signature(settings.RAZORPAY_WEBHOOK_SECRETS[0], body),
            "X-Razorpay-Event-Id": f"event_demo{n:04}_{kind}",
        },
    )


def _stripe(n: int, order_id: str, amount: int, currency: str) -> None:
    intent = {
        "id": f"pi_demo{n:04}",
        "object": "payment_intent",
        "amount": amount,
        "amount_received": amount,
        "currency": currency.lower(),
        "metadata": {"order_id": order_id},
        "receipt_email": f"abroad{n}@example.com",
    }
    event = {
        "id": f"evt_demo{n:04}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "data": {"object": intent},
    }
    body = json.dumps(event).encode()
    now = int(time.time())
    signature = _signature(settings.STRIPE_WEBHOOK_SECRETS[0], f"{now}.".encode() + body)
    _receive("stripe", body, {"Stripe-Signature": f"t={now},v1={signature}"})


def _signature(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _receive(provider: str, body: bytes, headers: dict[str, str]) -> None:
    intake.receive(provider, body, headers | {"Content-Type": "application/json"})
