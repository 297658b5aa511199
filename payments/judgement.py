"""What one payment of a provider's books says otherwise than the ledger. No database is read here."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from payments.models import Transaction
from payments.providers.base import Payment
from queues.clean import storable_json

# Without these a payment is only an attempt: nobody gave or owes anything.
WITH_MONEY = ("authorized", *Transaction.SETTLED)
UNPAID = ("created", "failed")
# In these the shop still has money of the payment.
KEPT = ("paid", "partially_refunded")

Outcome = Literal["agreed", "ignored", "missing_here", "different"]


class Judgement(NamedTuple):
    """What comparing one payment gave, and where it differs, with both values."""

    outcome: Outcome
    difference: str = ""


def judge(provider: str, ours: Transaction | None, theirs: Payment) -> Judgement:
    """Compare a payment of the provider with the row of the ledger that it belongs to.

    Ignored: an attempt that brought no money, and a payment beside the one that paid the order, as
    long as its money is not kept.
    """
    if ours is None:
        if theirs.status not in WITH_MONEY:
            return Judgement("ignored")
        return Judgement("missing_here", f"{words(theirs.status)} there, unknown here")
    if _is_beside(ours, theirs):
        return Judgement("ignored")
    found = differences(provider, ours, theirs)
    return Judgement("different", "; ".join(found)) if found else Judgement("agreed")


def _is_beside(ours: Transaction, theirs: Payment) -> bool:
    """Whether it is another payment of the order than the one that counts, and changes nothing."""
    if ours.payment_id == theirs.payment_id:
        return False
    if theirs.status not in WITH_MONEY:
        return True
    if ours.payment_id is None:
        return False
    if ours.status in Transaction.SETTLED:
        return theirs.status not in KEPT
    return ours.status == theirs.status == "authorized"


def differences(provider: str, ours: Transaction, theirs: Payment) -> list[str]:
    """Where the two sides differ, each with both values. An e-mail address that either side does not
    know is no difference, nor is its case."""
    if ours.status in Transaction.SETTLED and ours.payment_id not in (None, theirs.payment_id):
        return [f"{_both('payment', ours.payment_id, theirs.payment_id)}: the order was paid twice"]
    pairs = [
        ("provider", ours.provider, provider),
        ("order", ours.order_id, theirs.order_id or ours.order_id),
        ("amount", ours.amount, theirs.amount),
        ("currency", ours.currency, theirs.currency),
    ]
    found = [_both(name, here, there) for name, here, there in pairs if here != there]
    if not _same_status(ours, theirs):
        found.append(_both("status", words(ours.status), words(theirs.status)))
    if theirs.refunded is not None and ours.refunded != theirs.refunded:
        found.append(_both("refunded", ours.refunded, theirs.refunded))
    if ours.email and theirs.email and ours.email.lower() != theirs.email.lower():
        found.append(_both("email", ours.email, theirs.email))
    return found


def _same_status(ours: Transaction, theirs: Payment) -> bool:
    if theirs.refunded is None and theirs.status == "paid":
        return ours.status in Transaction.SETTLED
    return ours.status == theirs.status or (ours.status in UNPAID and theirs.status in UNPAID)


def _both(name: str, ours: object, theirs: object) -> str:
    return f"{name}: ours {ours}, theirs {theirs}"


def words(status: str) -> str:
    return status.replace("_", " ")


def json_of_ours(row: Transaction) -> dict[str, Any]:
    """A row of the ledger as a row of differences keeps it."""
    return {
        "provider": row.provider,
        "order_id": row.order_id,
        "payment_id": row.payment_id,
        "status": row.status,
        "amount": row.amount,
        "currency": row.currency,
        "refunded": row.refunded,
        "email": row.email,
        "paid_at": row.paid_at and row.paid_at.isoformat(),
    }


def json_of_theirs(payment: Payment) -> dict[str, Any]:
    """A payment as a row of differences keeps it."""
    value: dict[str, Any] = storable_json(
        {
            "payment_id": payment.payment_id,
            "order_id": payment.order_id,
            "status": payment.status,
            "amount": payment.amount,
            "currency": payment.currency,
            "refunded": payment.refunded,
            "email": payment.email,
            "created_at": payment.created_at and payment.created_at.isoformat(),
            "raw": payment.raw,
        }
    )
    return value


def payment_of(value: dict[str, Any]) -> Payment:
    """The payment that json_of_theirs() wrote."""
    made = value["created_at"]
    return Payment(**{**value, "created_at": made and datetime.fromisoformat(made)})
