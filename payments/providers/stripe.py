"""Stripe: webhooks signed with HMAC-SHA256 of a time and the raw body; and its books, asked through
its own SDK.

The order is what the shop wrote down when it made the payment: metadata `order_id`, or a checkout's
client_reference_id. An event without either means the order of its payment intent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from django.conf import settings

from payments.providers import parse
from payments.providers.base import (
    BadSignature,
    Event,
    NotConfigured,
    Payment,
    Provider,
    ProviderError,
    Rejected,
    Status,
    header,
)

_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGE = 100
_TIMEOUT_SECONDS = 20
_MOST_SIGNATURES = 10
_INTENTS: dict[str, Status] = {
    "payment_intent.succeeded": "paid",
    "payment_intent.amount_capturable_updated": "authorized",
    "payment_intent.payment_failed": "failed",
    "payment_intent.canceled": "failed",
}
_CHECKOUTS: dict[str, Status] = {
    "checkout.session.completed": "paid",
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
}
_BOOKED: dict[str, Status] = {
    "succeeded": "paid",
    "requires_capture": "authorized",
    "canceled": "failed",
}


class Stripe(Provider):
    """Stripe, as its documentation has it. STRIPE_TOLERANCE_SECONDS: how old a signature may be."""

    name = "stripe"

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Event:
        _check_signature(body, header(headers, "Stripe-Signature"), secrets)
        content = parse.json_object(body)
        event_id = parse.text(content, "id", most=200)
        event_type = parse.text(content, "type")
        thing = parse.member(content, "data.object")
        if event_type in _INTENTS:
            return _of_intent(event_id, event_type, thing)
        if event_type in _CHECKOUTS:
            return _of_checkout(event_id, event_type, thing)
        if event_type == "charge.refunded":
            return _of_refund(event_id, thing)
        return Event(
            event_id=event_id,
            event_type=event_type,
            order_id=_hint(thing),
            note="Events of this type change no transaction.",
        )

    def payments(self, since: datetime, until: datetime) -> Iterator[Payment]:
        client, errors = _client()
        span = {"gte": int(since.timestamp()), "lte": int(until.timestamp())}
        wanted = {"created": span, "limit": _PAGE, "expand": ["data.latest_charge"]}
        try:
            for intent in client.v1.payment_intents.list(wanted).auto_paging_iter():
                yield _booked(intent.to_dict())
        except errors as error:
            raise ProviderError(f"Stripe did not give its payments: {error}") from error

    def payments_of(self, order_id: str) -> list[Payment]:
        client, errors = _client()
        quoted = order_id.replace("\\", "\\\\").replace('"', '\\"')
        wanted = {
            "query": f'metadata["order_id"]:"{quoted}"',
            "limit": _PAGE,
            "expand": ["data.latest_charge"],
        }
        try:
            if order_id.startswith("pi_"):
                found = [
                    client.v1.payment_intents.retrieve(order_id, {"expand": ["latest_charge"]})
                ]
            else:
                found = list(client.v1.payment_intents.search(wanted).auto_paging_iter())
            return [_booked(intent.to_dict()) for intent in found]
        except errors as error:
            raise ProviderError(f"Stripe did not tell of {order_id}: {error}") from error


def _check_signature(body: bytes, given: str, secrets: Sequence[str]) -> None:
    """Any of the v1 signatures may fit any secret: both are several while a secret is rotated."""
    if not given:
        raise BadSignature("The header Stripe-Signature is missing.")
    pairs = [part.strip().partition("=") for part in given.split(",")[: _MOST_SIGNATURES + 1]]
    times = [value for key, _, value in pairs if key == "t"]
    signatures = [value for key, _, value in pairs if key == "v1" and _HEX_SHA256.fullmatch(value)]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal() and len(times[0]) < 20):
        raise BadSignature("The header Stripe-Signature holds no time t.")
    if not signatures:
        raise BadSignature("The header Stripe-Signature holds no signature v1 of 64 digits.")
    signed = times[0].encode() + b"." + body
    fits = [
        hmac.compare_digest(
            hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode(),
            signature.encode(),
        )
        for secret in secrets
        for signature in signatures
    ]
    if not any(fits):
        raise BadSignature("The signature was made with no secret of ours, or for another body.")
    if int(times[0]) < time.time() - settings.STRIPE_TOLERANCE_SECONDS:
        raise BadSignature(
            f"The signature is older than {settings.STRIPE_TOLERANCE_SECONDS} seconds: a replay, or"
            " this machine's clock is wrong."
        )


def _of_intent(event_id: str, event_type: str, intent: dict[str, Any]) -> Event:
    status = _INTENTS[event_type]
    amount = "amount_received" if status == "paid" else "amount"
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=_order(intent),
        payment_id=parse.text(intent, "id"),
        email=parse.optional_text(intent, "receipt_email", most=320),
        amount=parse.amount(intent, amount),
        currency=_currency(intent),
        status=status,
    )


def _of_checkout(event_id: str, event_type: str, session: dict[str, Any]) -> Event:
    order_id = _order(session) or parse.optional_text(session, "client_reference_id")
    status: Status | None = _CHECKOUTS[event_type]
    if status == "paid" and session.get("payment_status") != "paid":
        status = None
    payment_id = parse.optional_text(session, "payment_intent")
    if status is None or payment_id is None:
        return Event(
            event_id=event_id,
            event_type=event_type,
            order_id=order_id,
            payment_id=payment_id,
            note="No money has come by this checkout yet.",
        )
    details = session.get("customer_details")
    email = parse.optional_text(details, "email", most=320) if isinstance(details, dict) else None
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        payment_id=payment_id,
        email=email or parse.optional_text(session, "customer_email", most=320),
        amount=parse.amount(session, "amount_total"),
        currency=_currency(session),
        status=status,
    )


def _of_refund(event_id: str, charge: dict[str, Any]) -> Event:
    amount = parse.amount(charge, "amount")
    refunded = parse.amount(charge, "amount_refunded")
    return Event(
        event_id=event_id,
        event_type="charge.refunded",
        order_id=_order(charge),
        payment_id=parse.optional_text(charge, "payment_intent") or parse.text(charge, "id"),
        amount=amount,
        currency=_currency(charge),
        status="refunded" if refunded >= amount else "partially_refunded",
        refunded=refunded,
    )


def _order(thing: dict[str, Any]) -> str | None:
    metadata = thing.get("metadata")
    return parse.optional_text(metadata, "order_id") if isinstance(metadata, dict) else None


def _hint(thing: dict[str, Any]) -> str | None:
    """The order that an event of another type speaks of, where it says so plainly."""
    try:
        return _order(thing) or parse.optional_text(thing, "client_reference_id")
    except Rejected:
        return None


def _currency(thing: dict[str, Any]) -> str:
    """Stripe writes it in small letters."""
    given = thing.get("currency")
    return parse.currency(
        {"currency": given.upper() if isinstance(given, str) else given}, "currency"
    )


def _client() -> tuple[Any, tuple[type[Exception], ...]]:
    """Stripe's own client, and what it raises. Imported here: only reconciliation needs it."""
    if not settings.STRIPE_API_KEY:
        raise NotConfigured("STRIPE_API_KEY is empty: set it to ask Stripe.")
    import stripe

    client = stripe.StripeClient(
        settings.STRIPE_API_KEY,
        base_addresses={"api": settings.STRIPE_API_BASE},
        http_client=stripe.RequestsClient(timeout=_TIMEOUT_SECONDS),
        max_network_retries=2,
    )
    return client, (stripe.StripeError, KeyError, ValueError, Rejected)


def _booked(intent: dict[str, Any]) -> Payment:
    charge = intent.get("latest_charge")
    refunded = 0
    if isinstance(charge, dict) and charge.get("amount_refunded"):
        refunded = parse.amount(charge, "amount_refunded")
    status = _BOOKED.get(cast(str, intent.get("status")), "created")
    amount = parse.amount(intent, "amount_received" if status == "paid" else "amount")
    if status == "paid" and refunded:
        status = "refunded" if refunded >= amount else "partially_refunded"
    return Payment(
        payment_id=parse.text(intent, "id"),
        order_id=_order(intent),
        status=status,
        amount=amount,
        currency=_currency(intent),
        refunded=refunded,
        email=parse.optional_text(intent, "receipt_email", most=320),
        created_at=datetime.fromtimestamp(intent.get("created") or 0, UTC),
        raw=intent,
    )
