"""Razorpay's webhooks: hex HMAC-SHA256 of the raw body, the event's id in a header."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from payments.providers import parse
from payments.providers.base import BadSignature, Event, Provider, Rejected, Status, header

_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MOST_EVENT_ID = 200
# What Razorpay writes where it was given no address; nobody reads it.
NO_EMAIL = "void@razorpay.com"
_STATUS: dict[str, Status] = {
    "payment.authorized": "authorized",
    "payment.captured": "paid",
    "order.paid": "paid",
    "payment.failed": "failed",
    "refund.processed": "refunded",
}


class Razorpay(Provider):
    """Razorpay, as its webhook documentation has it."""

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


def _check_signature(body: bytes, given: str, secrets: Sequence[str]) -> None:
    if not given:
        raise BadSignature("The header X-Razorpay-Signature is missing.")
    if not _HEX_SHA256.fullmatch(given):
        raise BadSignature("The header X-Razorpay-Signature is not 64 hexadecimal digits.")
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


def _money_event(event_id: str, event_type: str, status: Status, content: dict[str, Any]) -> Event:
    payment = parse.member(content, "payload.payment.entity")
    payment_id = parse.text(payment, "id")
    # A payment made without an order stands for the order itself.
    order_id = parse.optional_text(payment, "order_id") or payment_id
    if event_type == "order.paid":
        order = parse.member(content, "payload.order.entity")
        if parse.text(order, "id") != order_id and payment.get("order_id"):
            raise Rejected("The order and the payment in the body name different orders.")
        order_id = parse.text(order, "id")
    email = parse.optional_text(payment, "email", most=320)
    part_refunded = status == "refunded" and not _refunded_in_full(content, payment)
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        payment_id=payment_id,
        email=None if email == NO_EMAIL else email,
        amount=parse.amount(payment, "amount"),
        currency=parse.currency(payment, "currency"),
        status=None if part_refunded else status,
        note="A part of the money was refunded; the order stays paid." if part_refunded else "",
    )


def _refunded_in_full(content: dict[str, Any], payment: dict[str, Any]) -> bool:
    """A refund is of the whole or of a part; amount_refunded counts all parts so far."""
    refund = parse.amount(parse.member(content, "payload.refund.entity"), "amount")
    so_far = refund
    if payment.get("amount_refunded") is not None:
        so_far = parse.amount(payment, "amount_refunded")
    return max(so_far, refund) >= parse.amount(payment, "amount")


def _order_hint(content: dict[str, Any]) -> str | None:
    """The order that an event of another type speaks of, where it says so plainly."""
    try:
        payment = parse.member(content, "payload.payment.entity")
        return parse.optional_text(payment, "order_id") or parse.text(payment, "id")
    except Rejected:
        return None
