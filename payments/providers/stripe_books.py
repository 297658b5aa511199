"""Stripe's books: its payment intents, asked through its own client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

import stripe
import structlog

from payments.providers import parse
from payments.providers.base import Booked, Payment, ProviderError, Rejected, Status, Unread
from payments.providers.stripe_events import currency_of

log = structlog.get_logger(__name__)
# It tells of every request otherwise.
logging.getLogger("stripe").setLevel(logging.WARNING)

# The most that its API gives at once.
PAGE = 100
TIMEOUT_SECONDS = 20
TRIES_AGAIN = 2
STATUS: dict[str, Status] = {
    "succeeded": "paid",
    "requires_capture": "authorized",
    "canceled": "failed",
}


class StripeBooks:
    """What Stripe tells of its payment intents. Raises ProviderError."""

    def __init__(self, key: str, base: str) -> None:
        client = stripe.StripeClient(
            key,
            base_addresses={"api": base},
            http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
            max_network_retries=TRIES_AGAIN,
        )
        self._intents: Any = client.v1.payment_intents

    def payments(self, since: datetime, until: datetime) -> Iterator[Booked]:
        # Its bounds are whole seconds, both included.
        span = {"gte": int(since.timestamp()), "lte": int(until.timestamp())}
        wanted = {"created": span, "limit": PAGE, "expand": ["data.latest_charge"]}
        with _asking("for its payments"):
            for intent in self._intents.list(wanted).auto_paging_iter():
                yield _booked_or_unread(intent)

    def payment(self, payment_id: str) -> Booked | None:
        with _asking(f"for payment {payment_id}"):
            try:
                intent = self._intents.retrieve(payment_id, {"expand": ["latest_charge"]})
            except stripe.InvalidRequestError as error:
                if error.http_status == 404:
                    return None
                raise
            return _booked_or_unread(intent)

    def payments_of(self, order_id: str) -> list[Booked]:
        quoted = order_id.replace("\\", "\\\\").replace('"', '\\"')
        wanted = {
            "query": f'metadata["order_id"]:"{quoted}"',
            "limit": PAGE,
            "expand": ["data.latest_charge"],
        }
        with _asking(f"for the payments of order {order_id}"):
            try:
                found = self._intents.search(wanted).auto_paging_iter()
                return [_booked_or_unread(intent) for intent in found]
            except stripe.InvalidRequestError as error:
                # Not every account may search. Its listing tells of all payments of a span.
                log.warning("stripe cannot be searched", order_id=order_id, reason=str(error))
                return []


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Raise all that goes wrong as ProviderError, saying what was asked."""
    try:
        yield
    except stripe.StripeError as error:
        raise ProviderError(f"Stripe, asked {what}: {_said(error)}") from error
    except (Rejected, KeyError, TypeError, AttributeError) as error:
        raise ProviderError(f"Stripe, asked {what}, gave what cannot be read: {error}") from error


def _said(error: stripe.StripeError) -> str:
    """Its words, or what it is where it has none."""
    if (error.user_message or "").strip():
        return str(error)
    status = f"status {error.http_status}" if error.http_status else "no answer"
    return f"{type(error).__name__} without a message, {status}"


def _booked_or_unread(given: stripe.PaymentIntent) -> Booked:
    try:
        return _booked(given)
    except (Rejected, TypeError, AttributeError) as odd:
        payment_id = parse.lenient_text({"id": getattr(given, "id", None)}, "id")
        return Unread(payment_id=payment_id, reason=str(odd))


def _booked(given: stripe.PaymentIntent) -> Payment:
    intent = given.to_dict(for_json=True)
    payment_id = parse.text(intent, "id")
    charge = intent.get("latest_charge")
    refunded = 0
    if isinstance(charge, dict) and charge.get("amount_refunded"):
        refunded = parse.amount(charge, "amount_refunded")
    status = STATUS.get(cast(str, intent.get("status")), "created")
    amount = parse.amount(intent, "amount_received" if status == "paid" else "amount")
    if status == "paid" and refunded:
        status = "refunded" if refunded >= amount else "partially_refunded"
    metadata = intent.get("metadata")
    return Payment(
        payment_id=payment_id,
        order_id=parse.lenient_text(metadata, "order_id", most=parse.SHOP_TEXT)
        if isinstance(metadata, dict)
        else None,
        status=status,
        amount=amount,
        currency=currency_of(intent),
        refunded=refunded,
        email=parse.lenient_text(intent, "receipt_email", most=320),
        created_at=parse.moment(intent, "created"),
        raw=intent,
    )
