"""Razorpay: webhooks signed with hex HMAC-SHA256 of the raw body, the event's id in a header; a
callback signed with the key's secret; and its books, asked through its own SDK."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from django.conf import settings

from payments.providers import parse
from payments.providers.base import (
    BadSignature,
    Callback,
    Event,
    NotConfigured,
    Payment,
    Provider,
    ProviderError,
    Rejected,
    Status,
    header,
)

_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MOST_EVENT_ID = 200
# The most that its API gives at once.
_PAGE = 100
_TIMEOUT_SECONDS = 20
# What Razorpay writes where it was given no address; nobody reads it.
NO_EMAIL = "void@razorpay.com"
_STATUS: dict[str, Status] = {
    "payment.authorized": "authorized",
    "payment.captured": "paid",
    "order.paid": "paid",
    "payment.failed": "failed",
    "refund.processed": "refunded",
}
_BOOKED: dict[str, Status] = {
    "created": "created",
    "authorized": "authorized",
    "captured": "paid",
    "failed": "failed",
    "refunded": "refunded",
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
        order_id = parse.text(dict(fields), "razorpay_order_id")
        payment_id = parse.text(dict(fields), "razorpay_payment_id")
        given = fields.get("razorpay_signature") or ""
        body = f"{order_id}|{payment_id}".encode()
        _check_signature(body, given, [secret], where="field razorpay_signature")
        return Callback(order_id, payment_id)

    def payments(self, since: datetime, until: datetime) -> Iterator[Payment]:
        client, errors = _client()
        # Its bounds are whole seconds, both included.
        span = {"from": int(since.timestamp()), "to": int(until.timestamp()), "count": _PAGE}
        skip = 0
        while True:
            try:
                items = client.payment.all({**span, "skip": skip})["items"]
                found = [_booked(item) for item in items]
            except errors as error:
                raise ProviderError(f"Razorpay did not give its payments: {error}") from error
            yield from found
            skip += len(found)
            if len(found) < _PAGE:
                return

    def payments_of(self, order_id: str) -> list[Payment]:
        client, errors = _client()
        try:
            return [_booked(item) for item in client.order.payments(order_id)["items"]]
        except errors as error:
            raise ProviderError(f"Razorpay did not tell of {order_id}: {error}") from error


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


def _money_event(event_id: str, event_type: str, status: Status, content: dict[str, Any]) -> Event:
    payment = parse.member(content, "payload.payment.entity")
    payment_id = parse.text(payment, "id")
    order_id = parse.optional_text(payment, "order_id")
    if event_type == "order.paid":
        order = parse.member(content, "payload.order.entity")
        if order_id and parse.text(order, "id") != order_id:
            raise Rejected("The order and the payment in the body name different orders.")
        order_id = parse.text(order, "id")
    amount = parse.amount(payment, "amount")
    refunded = 0
    if status == "refunded":
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


def _refunded(content: dict[str, Any], payment: dict[str, Any]) -> int:
    """A refund is of the whole or of a part; amount_refunded counts all parts so far."""
    refund = parse.amount(parse.member(content, "payload.refund.entity"), "amount")
    if payment.get("amount_refunded") is None:
        return refund
    return max(refund, parse.amount(payment, "amount_refunded"))


def _email(payment: dict[str, Any]) -> str | None:
    email = parse.optional_text(payment, "email", most=320)
    return None if email == NO_EMAIL else email


def _order_hint(content: dict[str, Any]) -> str | None:
    """The order that an event of another type speaks of, where it says so plainly."""
    try:
        payment = parse.member(content, "payload.payment.entity")
        return parse.optional_text(payment, "order_id") or parse.text(payment, "id")
    except Rejected:
        return None


def _client() -> tuple[Any, tuple[type[Exception], ...]]:
    """Razorpay's own client, and what it raises. Imported here: only reconciliation needs it."""
    key, secret = settings.RAZORPAY_KEY_ID, settings.RAZORPAY_KEY_SECRET
    if not (key and secret):
        raise NotConfigured(
            "RAZORPAY_KEY_ID or RAZORPAY_KEY_SECRET is empty: set both to ask Razorpay."
        )
    import razorpay
    import requests

    client = razorpay.Client(
        auth=(key, secret), base_url=settings.RAZORPAY_API_BASE, timeout=_TIMEOUT_SECONDS
    )
    errors = (
        *(razorpay.errors.BadRequestError, razorpay.errors.GatewayError),
        *(razorpay.errors.ServerError, requests.RequestException, KeyError, ValueError, Rejected),
    )
    return client, errors


def _booked(item: dict[str, Any]) -> Payment:
    amount = parse.amount(item, "amount")
    refunded = parse.amount(item, "amount_refunded") if item.get("amount_refunded") else 0
    status = _BOOKED.get(cast(str, item.get("status")))
    if status is None:
        raise Rejected(f"payment {item.get('id')} has the unknown status {item.get('status')!r}.")
    if status == "paid" and refunded:
        status = "partially_refunded"
    return Payment(
        payment_id=parse.text(item, "id"),
        order_id=parse.optional_text(item, "order_id"),
        status=status,
        amount=amount,
        currency=parse.currency(item, "currency"),
        refunded=refunded,
        email=_email(item),
        created_at=datetime.fromtimestamp(item.get("created_at") or 0, UTC),
        raw=item,
    )
