"""What Razorpay and Stripe would send, signed as they sign it, and posted to the address they post to."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from django.http import HttpResponse
from django.test import Client
from stripe import WebhookSignature

from payments.models import Transaction, WebhookDelivery
from queues.models import Task

RAZORPAY_URL = "/webhooks/razorpay"
STRIPE_URL = "/webhooks/stripe"
BIG = 2**53


def sign(body: bytes, secret: str = "current-secret") -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def body_of(
    event: str = "payment.captured",
    order: Any = "order_1",
    refunded: int | None = None,
    **fields: Any,
) -> bytes:
    """An event of Razorpay's. `refunded`: all that a refund.processed has given back so far, or what a
    refund.failed has not."""
    payment: dict[str, Any] = {
        "id": "pay_1",
        "entity": "payment",
        "amount": 50000,
        "currency": "INR",
        "order_id": order,
        "email": "buyer@example.com",
        "fee": 1000,
        "tax": 0,
        "notes": [],
    } | fields
    payload: dict[str, Any] = {"payment": {"entity": payment}}
    if event == "order.paid":
        payload["order"] = {"entity": {"id": order, "entity": "order", "amount": 50000}}
    if event in ("refund.processed", "refund.failed"):
        amount = payment["amount"] if refunded is None else refunded
        payload["refund"] = {"entity": {"id": "rfnd_1", "amount": amount, "payment_id": "pay_1"}}
        payment["amount_refunded"] = amount
    return json.dumps(
        {"entity": "event", "event": event, "contains": list(payload), "payload": payload}
    ).encode()


def post(
    body: bytes,
    event_id: str | None = "evt_1",
    *,
    signature: str | None = None,
    client: Client | None = None,
    **headers: str,
) -> Any:
    known = {"X-Razorpay-Signature": signature if signature is not None else sign(body)}
    if event_id is not None:
        known["X-Razorpay-Event-Id"] = event_id
    return (client or Client()).post(
        RAZORPAY_URL, body, content_type="application/json", headers=known | headers
    )


def deliver(event: str = "payment.captured", event_id: str = "evt_1", **fields: Any) -> Any:
    return post(body_of(event, **fields), event_id)


def stripe_body(kind: str, thing: dict[str, Any], event_id: str = "evt_1") -> bytes:
    return json.dumps(
        {"id": event_id, "object": "event", "type": kind, "data": {"object": thing}}
    ).encode()


def intent(**fields: Any) -> dict[str, Any]:
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 50000,
        "amount_received": 50000,
        "currency": "inr",
        "metadata": {"order_id": "order_1"},
        "receipt_email": "buyer@example.com",
    } | fields


def checkout(**fields: Any) -> dict[str, Any]:
    return {
        "id": "cs_1",
        "object": "checkout.session",
        "amount_total": 50000,
        "currency": "inr",
        "payment_intent": "pi_1",
        "payment_status": "paid",
        "client_reference_id": "order_1",
        "metadata": {},
        "customer_details": {"email": "buyer@example.com"},
    } | fields


def charge(**fields: Any) -> dict[str, Any]:
    return {
        "id": "ch_1",
        "object": "charge",
        "amount": 50000,
        "amount_refunded": 50000,
        "currency": "inr",
        "payment_intent": "pi_1",
        "metadata": {},
    } | fields


def refund(**fields: Any) -> dict[str, Any]:
    return {
        "id": "re_1",
        "object": "refund",
        "amount": 10000,
        "currency": "inr",
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "metadata": {},
        "status": "failed",
    } | fields


def stripe_signature(body: bytes, secret: str = "whsec_current", at: int | None = None) -> str:
    """Made by Stripe's own SDK."""
    return str(WebhookSignature.generate_signature_header(body.decode(), secret, at))


def post_stripe(body: bytes, signature: str | None = None) -> Any:
    given = stripe_signature(body) if signature is None else signature
    return Client().post(
        STRIPE_URL, body, content_type="application/json", headers={"Stripe-Signature": given}
    )


def deliver_stripe(kind: str, thing: dict[str, Any], event_id: str = "evt_1") -> Any:
    return post_stripe(stripe_body(kind, thing, event_id))


def verdict(response: HttpResponse) -> str:
    assert response.status_code == 200, response.content
    return str(json.loads(response.content)["verdict"])


def verdicts() -> list[str]:
    return list(WebhookDelivery.objects.order_by("id").values_list("verdict", flat=True))


def nothing_happened() -> bool:
    return not Transaction.objects.exists() and not Task.objects.exists()
