"""Stripe: webhooks signed with HMAC-SHA256 of a time and the raw body. Its books: stripe_books.py.

The order is what the shop wrote down when it made the payment: metadata `order_id`, or a checkout's
client_reference_id. An event without either means the order of its payment intent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings

from payments.providers import parse
from payments.providers.base import (
    BadSignature,
    Event,
    NotConfigured,
    Payment,
    Provider,
    Rejected,
    Status,
    header,
)

if TYPE_CHECKING:
    from payments.providers.stripe_books import StripeBooks

_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
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

    def has_key(self) -> bool:
        return bool(settings.STRIPE_API_KEY)

    def payments(self, since: datetime, until: datetime) -> Iterator[Payment]:
        return self._books.payments(since, until)

    def payment(self, payment_id: str) -> Payment | None:
        return self._books.payment(payment_id)

    def payments_of(self, order_id: str) -> list[Payment]:
        return self._books.payments_of(order_id)

    @cached_property
    def _books(self) -> StripeBooks:
        if not self.has_key():
            raise NotConfigured("STRIPE_API_KEY is empty: set it to ask Stripe.")
        # Here: only reconciliation needs Stripe's client, which takes long to import.
        from payments.providers.stripe_books import StripeBooks

        return StripeBooks(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


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
        email=parse.lenient_text(intent, "receipt_email", most=320),
        amount=parse.amount(intent, amount),
        currency=currency_of(intent),
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
    email = parse.lenient_text(details, "email", most=320) if isinstance(details, dict) else None
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        payment_id=payment_id,
        email=email or parse.lenient_text(session, "customer_email", most=320),
        amount=parse.amount(session, "amount_total"),
        currency=currency_of(session),
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
        currency=currency_of(charge),
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


def currency_of(thing: dict[str, Any]) -> str:
    """Stripe writes it in small letters."""
    given = thing.get("currency")
    return parse.currency(
        {"currency": given.upper() if isinstance(given, str) else given}, "currency"
    )
