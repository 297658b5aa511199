"""What an open mismatch means, and what a person can do about it."""

from __future__ import annotations

from typing import Any, NamedTuple

from payments.console.compare import Line, told_by
from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount

ACCEPTED = (
    "Its amount, currency and address replace the recorded ones, and the order goes on from there: one"
    " that becomes paid is fulfilled."
)


class Meaning(NamedTuple):
    """`told`: what is wrong; `next`: what to do about it; `accepting`: what accepting does, empty
    where it cannot be accepted."""

    told: str
    next: str = ""
    accepting: str = ""


def meaning_of(row: Transaction | None, delivery: WebhookDelivery) -> Meaning:
    """Of a delivery that contradicts the ledger, whose order's row is as given."""
    claim = delivery.claim or {}
    if not claim.get("status"):
        return Meaning(delivery.reason)
    if claim["status"] == "refund_failed":
        return _failed_refund(row, claim)
    if row and _is_second(row, claim) and claim["status"] != Transaction.Status.REFUNDED:
        return _second(row, claim, delivery.reason)
    differing = [line for line in told_by(row, delivery) if line.differs]
    return Meaning("; ".join(map(_both, differing)) or delivery.reason, accepting=ACCEPTED)


def _is_second(row: Transaction, claim: dict[str, Any]) -> bool:
    """Whether another payment brought the order's money."""
    told, recorded = claim.get("payment_id"), row.payment_id
    return row.status in Transaction.SETTLED and bool(told and recorded) and told != recorded


def _failed_refund(row: Transaction | None, claim: dict[str, Any]) -> Meaning:
    told = f"{_amount(claim)} given back did not go through"
    if row and _is_second(row, claim):
        payment = claim.get("payment_id")
        return Meaning(
            f"{told}, and another payment pays the order.",
            f"Refund payment {payment} again at the provider, then set this aside.",
        )
    if row is None or not row.refunded:
        return Meaning(
            f"{told}. No refund is recorded.",
            "Look at the refund at the provider, then set this aside.",
        )
    return Meaning(
        f"{told}; accepting takes it off.",
        "If the customer is still owed it, refund it again at the provider.",
        f"{_amount(claim)} is taken off what is recorded as given back; nothing else changes.",
    )


def _second(row: Transaction, claim: dict[str, Any], reason: str) -> Meaning:
    payment = claim.get("payment_id")
    if row.status == Transaction.Status.REFUNDED:
        return Meaning(
            f"Payment {payment} brought money, and payment {row.payment_id} went back in full.",
            f"Accept it to make {payment} the payment that counts, or refund it at the provider.",
            ACCEPTED,
        )
    return Meaning(
        f"{reason.rstrip('.')}.",
        f"Refund payment {payment} at the provider, which closes this by itself, or set it aside.",
    )


def _amount(claim: dict[str, Any]) -> str:
    amount, currency = claim.get("amount"), claim.get("currency")
    return format_amount(amount, currency) if isinstance(amount, int) and currency else "A refund"


def _both(line: Line) -> str:
    return f"{line.label.lower()} {line.ours} recorded, {line.theirs} delivered"
