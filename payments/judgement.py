"""What one payment of a provider's books says otherwise than the ledger. No database is read here."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from payments.models import OrderPayment, Transaction
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


def judge(
    provider: str, ours: Transaction | None, tried: OrderPayment | None, theirs: Payment
) -> Judgement:
    """Compare a payment of the provider with the order that it belongs to here, and with what we know
    of the payment itself.

    Ignored: an attempt that brought no money, and a payment beside the one that paid the order, as
    long as its money is not kept.
    """
    if ours is None:
        if theirs.status not in WITH_MONEY:
            return Judgement("ignored")
        return Judgement("missing_here", f"{words(theirs.status)} there, unknown here")
    if ours.payment_id not in (None, theirs.payment_id):
        if ours.status in Transaction.SETTLED:
            return _judge_second(ours, tried, theirs)
        if theirs.status not in WITH_MONEY or ours.status == theirs.status:
            return Judgement("ignored")
    elif ours.payment_id is None and theirs.status not in WITH_MONEY:
        return Judgement("ignored")
    return _told(differences(provider, ours, theirs))


def _judge_second(ours: Transaction, tried: OrderPayment | None, theirs: Payment) -> Judgement:
    """Compare a payment beside the one that brought the order's money."""
    if tried and tried.status in Transaction.SETTLED:
        # We know that it brought money, too: nothing is to be told but what became of that.
        name = f"payment {theirs.payment_id}, "
        return _told([name + found for found in _money_differences(tried, theirs)])
    if theirs.status not in KEPT:
        return Judgement("ignored")
    found = _order_difference(ours, theirs)
    paid = _both("payment", ours.payment_id, theirs.payment_id)
    return _told([*found, f"{paid}: the order was paid twice"])


def _told(found: list[str]) -> Judgement:
    return Judgement("different", "; ".join(found)) if found else Judgement("agreed")


def differences(provider: str, ours: Transaction, theirs: Payment) -> list[str]:
    """Where the two sides differ, each with both values. What failed need not be what was announced;
    an e-mail address that either side does not know is no difference, nor is its case."""
    found = _order_difference(ours, theirs)
    if theirs.status in WITH_MONEY and _is_binding(ours, theirs):
        pairs = [
            ("provider", ours.provider, provider),
            ("amount", ours.amount, theirs.amount),
            ("currency", ours.currency, theirs.currency),
        ]
        found += [_both(name, here, there) for name, here, there in pairs if here != there]
    found += _money_differences(ours, theirs)
    email = known_email(ours)
    if theirs.status in WITH_MONEY and email and theirs.email and not same(email, theirs.email):
        found.append(_both("email", email, theirs.email))
    return found


def known_email(ours: Transaction) -> str | None:
    """The address that news of an order's money is compared with."""
    paid = ours.status in Transaction.SETTLED
    return ours.expected_email or (ours.email if paid else None)


def same(address: str, other: str) -> bool:
    """Whether two e-mail addresses are the same but for their case."""
    return address.strip().lower() == other.strip().lower()


def _is_binding(ours: Transaction, theirs: Payment) -> bool:
    """Whether what we hold of the order is to be true of this payment; one attempt tells nothing of
    the next."""
    known = ours.expected_at is not None or ours.status in Transaction.SETTLED
    return known or ours.payment_id == theirs.payment_id


def _order_difference(ours: Transaction, theirs: Payment) -> list[str]:
    if theirs.order_id in (None, ours.order_id):
        return []
    return [_both("order", ours.order_id, theirs.order_id)]


def _money_differences(ours: Transaction | OrderPayment, theirs: Payment) -> list[str]:
    found = []
    if not _same_status(ours, theirs):
        found.append(_both("status", words(ours.status), words(theirs.status)))
    if theirs.refunded is not None and ours.refunded != theirs.refunded:
        found.append(_both("refunded", ours.refunded, theirs.refunded))
    return found


def _same_status(ours: Transaction | OrderPayment, theirs: Payment) -> bool:
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
        "email": known_email(row) or row.email,
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
