"""What Stripe's webhooks say.

The order is what the shop wrote down when it made the payment: metadata `order_id`, or a checkout's
client_reference_id. An event without either means the order of its payment intent, which another event
may yet name.
"""

from __future__ import annotations

from typing import Any

from payments.providers import parse
from payments.providers.base import Event, Rejected, Status

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
# One refund's end is told by up to three of them, depending on how it was paid and on what the shop's
# endpoint listens to.
_REFUND = "refund.failed"
_REFUNDS = (_REFUND, "refund.updated", "charge.refund.updated")
_FAILED = ("failed", "canceled")
# Until then a charge counted what was reserved and not captured as refunded.
_CAPTURE_IS_NO_REFUND = "2025-03-31"


def event_of(content: dict[str, Any]) -> Event:
    """What the body of a webhook says. Raises Rejected."""
    event_id = parse.text(content, "id", most=200)
    event_type = parse.text(content, "type")
    thing = parse.member(content, "data.object")
    if event_type in _INTENTS:
        return _of_intent(event_id, event_type, thing)
    if event_type in _CHECKOUTS:
        return _of_checkout(event_id, event_type, thing)
    if event_type == "charge.refunded":
        return _of_charge(event_id, event_type, thing, content.get("api_version"))
    if event_type in _REFUNDS and thing.get("status") in _FAILED:
        return _of_failed_refund(event_id, event_type, thing)
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=_hint(thing),
        note="Events of this type change no transaction.",
    )


def _of_intent(event_id: str, event_type: str, intent: dict[str, Any]) -> Event:
    status = _INTENTS[event_type]
    order_id = _order(intent)
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        order_follows=order_id is None,
        payment_id=parse.text(intent, "id"),
        email=parse.lenient_text(intent, "receipt_email", most=320),
        amount=parse.amount(intent, "amount_received" if status == "paid" else "amount"),
        currency=currency_of(intent),
        status=status,
    )


def _of_checkout(event_id: str, event_type: str, session: dict[str, Any]) -> Event:
    order_id = _order(session) or parse.optional_text(
        session, "client_reference_id", most=parse.SHOP_TEXT
    )
    intent = parse.optional_text(session, "payment_intent")
    payment_id = intent
    status: Status | None = _CHECKOUTS[event_type]
    if intent is None and _is_free(session):
        # Stripe makes no payment of nothing.
        payment_id = parse.text(session, "id")
    elif status == "paid" and session.get("payment_status") != "paid":
        status = None
    elif status == "paid" and intent is None:
        raise Rejected(
            "The checkout was paid without a payment intent, as subscriptions are: what its payment is"
            " called cannot be told from it."
        )
    if status is None or payment_id is None:
        return Event(
            event_id=event_id,
            event_type=event_type,
            order_id=order_id,
            payment_id=payment_id,
            note="No payment has been made by this checkout yet.",
        )
    details = session.get("customer_details")
    email = parse.lenient_text(details, "email", most=320) if isinstance(details, dict) else None
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        order_follows=order_id is None and intent is not None,
        payment_id=payment_id,
        email=email or parse.lenient_text(session, "customer_email", most=320),
        amount=parse.amount(session, "amount_total"),
        currency=currency_of(session),
        status=status,
    )


def _is_free(session: dict[str, Any]) -> bool:
    settled = session.get("payment_status") in ("paid", "no_payment_required")
    return settled and session.get("amount_total") == 0


def _of_charge(event_id: str, event_type: str, charge: dict[str, Any], version: Any) -> Event:
    """`version`: the API's that the event was written in."""
    order_id = _order(charge)
    payment_id = parse.optional_text(charge, "payment_intent") or parse.text(charge, "id")
    captured, refunded = _captured(charge), parse.amount(charge, "amount_refunded")
    if isinstance(version, str) and version < _CAPTURE_IS_NO_REFUND:
        refunded -= max(0, parse.amount(charge, "amount") - captured)
    if refunded <= 0:
        return Event(
            event_id=event_id,
            event_type=event_type,
            order_id=order_id,
            payment_id=payment_id,
            note="What was reserved and not captured was released: no money went back.",
        )
    return Event(
        event_id=event_id,
        event_type=event_type,
        order_id=order_id,
        order_follows=order_id is None,
        payment_id=payment_id,
        amount=captured,
        currency=currency_of(charge),
        status="refunded" if refunded >= captured else "partially_refunded",
        refunded=refunded,
    )


def _captured(charge: dict[str, Any]) -> int:
    """What of it has come, which may be less than was reserved."""
    if charge.get("amount_captured") is not None:
        return parse.amount(charge, "amount_captured")
    return 0 if charge.get("captured") is False else parse.amount(charge, "amount")


def _of_failed_refund(event_id: str, event_type: str, refund: dict[str, Any]) -> Event:
    payment_id = parse.optional_text(refund, "payment_intent") or parse.optional_text(
        refund, "charge"
    )
    if payment_id is None:
        return Event(
            event_id=event_id,
            event_type=event_type,
            note="The refund that failed is of no payment.",
        )
    # The refund's id is the event's: whichever of them comes first counts, and the others repeat it.
    return Event(
        event_id=f"{_REFUND}:{parse.text(refund, 'id')}",
        event_type=_REFUND,
        payment_id=payment_id,
        amount=parse.amount(refund, "amount"),
        currency=currency_of(refund),
        status="refund_failed",
    )


def _order(thing: dict[str, Any]) -> str | None:
    metadata = thing.get("metadata")
    if not isinstance(metadata, dict):
        return None
    return parse.optional_text(metadata, "order_id", most=parse.SHOP_TEXT)


def _hint(thing: dict[str, Any]) -> str | None:
    """The order that an event of another type speaks of, where it says so plainly."""
    try:
        return _order(thing) or parse.optional_text(
            thing, "client_reference_id", most=parse.SHOP_TEXT
        )
    except Rejected:
        return None


def currency_of(thing: dict[str, Any]) -> str:
    """Stripe writes it in small letters."""
    given = thing.get("currency")
    return parse.currency(
        {"currency": given.upper() if isinstance(given, str) else given}, "currency"
    )
