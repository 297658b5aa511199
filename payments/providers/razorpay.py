"""Razorpay: webhooks signed with hex HMAC-SHA256 of the raw body, the event's id in a header; and a
callback signed with the key's secret. Its books: razorpay_books.py."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings

from payments.providers import parse
from payments.providers.base import (
    BadSignature,
    Booked,
    Callback,
    Event,
    News,
    NotConfigured,
    Provider,
    Rejected,
    header,
)

if TYPE_CHECKING:
    from payments.providers.razorpay_books import RazorpayBooks

_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MOST_EVENT_ID = 200
# What Razorpay writes where it was given no address; nobody reads it.
NO_EMAIL = "void@razorpay.com"
_STATUS: dict[str, News] = {
    "payment.authorized": "authorized",
    "payment.captured": "paid",
    "order.paid": "paid",
    "payment.failed": "failed",
    "refund.processed": "refunded",
    "refund.failed": "refund_failed",
}


class Razorpay(Provider):
    """Razorpay, as its documentation has it."""

    name = "razorpay"
    kept_headers = ("x-razorpay-event-id",)

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Event:
        _check_signature(body, header(headers, "X-Razorpay-Signature"), secrets)
        event_id = _event_id(header(headers, "x-razorpay-event-id"))
        content = parse.json_object(body)
        event_type = parse.text(content, "event")
        status = _STATUS.get(event_type)
        if status is None:
            return Event(
                event_id=event_id,
                event_type=event_type,
                order_id=_order_hint(content),
                note="Events of this type change no transaction.",
            )
        return _money_event(event_id, event_type, status, content)

    def verify_callback(self, fields: Mapping[str, str]) -> Callback:
        secret = settings.RAZORPAY_KEY_SECRET
        if not secret:
            raise NotConfigured("RAZORPAY_KEY_SECRET is empty: set it to the key's secret.")
        order_id = parse.text(dict(fields), "razorpay_order_id", most=parse.SHOP_TEXT)
        payment_id = parse.text(dict(fields), "razorpay_payment_id")
        given = fields.get("razorpay_signature") or ""
        body = f"{order_id}|{payment_id}".encode()
        _check_signature(body, given, [secret], where="field razorpay_signature")
        return Callback(order_id, payment_id)

    def has_key(self) -> bool:
        return bool(settings.RAZORPAY_KEY_ID and settings.RAZORPAY_KEY_SECRET)

    def payments(self, since: datetime, until: datetime) -> Iterator[Booked]:
        return self._books.payments(since, until)

    def payment(self, payment_id: str) -> Booked | None:
        return self._books.payment(payment_id)

    def payments_of(self, order_id: str) -> Sequence[Booked]:
        return self._books.payments_of(order_id)

    @cached_property
    def _books(self) -> RazorpayBooks:
        if not self.has_key():
            raise NotConfigured(
                "RAZORPAY_KEY_ID or RAZORPAY_KEY_SECRET is empty: set both to ask Razorpay."
            )
        # Here: only reconciliation needs Razorpay's client, which takes long to import.
        from payments.providers.razorpay_books import RazorpayBooks

        return RazorpayBooks(
            settings.RAZORPAY_KEY_ID, settings.RAZORPAY_KEY_SECRET, settings.RAZORPAY_API_BASE
        )


def _check_signature(
    body: bytes, given: str, secrets: Sequence[str], where: str = "header X-Razorpay-Signature"
) -> None:
    if not given:
        raise BadSignature(f"The {where} is missing.")
    if not _HEX_SHA256.fullmatch(given):
        raise BadSignature(f"The {where} is not 64 hexadecimal digits.")
    signature = given.lower().encode("ascii")
    # Every secret is tried, so that the time taken does not tell which one fitted.
    fits = [
        hmac.compare_digest(
            hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode(), signature
        )
        for secret in secrets
    ]
    if not any(fits):
        raise BadSignature("The signature was made with no secret of ours, or for another body.")


def _event_id(given: str) -> str:
    if not given:
        raise Rejected("The header x-razorpay-event-id is missing.")
    if len(given) > _MOST_EVENT_ID:
        raise Rejected(f"The header x-razorpay-event-id is longer than {_MOST_EVENT_ID}.")
    if not (given.isascii() and given.isprintable()):
        raise Rejected("The header x-razorpay-event-id holds a character that is not plain text.")
    return given


def _money_event(event_id: str, event_type: str, status: News, content: dict[str, Any]) -> Event:
    payment = parse.member(content, "payload.payment.entity")
    payment_id = parse.text(payment, "id")
    order_id = parse.optional_text(payment, "order_id", most=parse.SHOP_TEXT)
    if event_type == "order.paid":
        order = parse.member(content, "payload.order.entity")
        paid = parse.text(order, "id", most=parse.SHOP_TEXT)
        if order_id and paid != order_id:
            raise Rejected("The order and the payment in the body name different orders.")
        order_id = paid
    amount = parse.amount(payment, "amount")
    refunded = 0
    if status == "refund_failed":
        amount = _refund(content)
    elif status == "refunded" and never_captured(payment):
        status = "failed"
    elif status == "refunded":
        refunded = _refunded(content, payment)
        status = "refunded" if refunded >= amount else "partially_refunded"
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        payment_id=payment_id,
        email=_email(payment),
        amount=amount,
        currency=parse.currency(payment, "currency"),
        status=status,
        refunded=refunded,
    )


def never_captured(payment: dict[str, Any]) -> bool:
    """Whether its refund is Razorpay's own, of money that was reserved and never reached the shop:
    not captured in time, or for an order that was paid already."""
    return payment.get("captured") is False


def _refund(content: dict[str, Any]) -> int:
    return parse.amount(parse.member(content, "payload.refund.entity"), "amount")


def _refunded(content: dict[str, Any], payment: dict[str, Any]) -> int:
    """A refund is of the whole or of a part; amount_refunded counts all parts so far.

    It may count refunds that are still pending. One event does not tell which those are, and to add
    up the refunds of several would make a sum that depends on their order and their repeats; if a
    pending one fails, refund.failed tells.
    """
    refund = _refund(content)
    if payment.get("amount_refunded") is None:
        return refund
    return max(refund, parse.amount(payment, "amount_refunded"))


def _email(payment: dict[str, Any]) -> str | None:
    # An odd address must not cost us the news of the money.
    email = parse.lenient_text(payment, "email", most=320)
    return None if email == NO_EMAIL else email


def _order_hint(content: dict[str, Any]) -> str | None:
    """The order that an event of another type speaks of, where it says so plainly."""
    try:
        payment = parse.member(content, "payload.payment.entity")
        named = parse.optional_text(payment, "order_id", most=parse.SHOP_TEXT)
        return named or parse.text(payment, "id")
    except Rejected:
        return None
