"""The ledger: one row an order, whose state only moves forward."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from payments.models import Transaction, WebhookDelivery
from payments.providers.base import Event
from queues.enqueue import enqueue
from queues.models import DatabaseClock

FULFIL = "payments.fulfil"
Verdict = WebhookDelivery.Verdict

# Where an order's money may go from where it is. A payment that failed may be tried again and
# succeed; a refund proves that the money had come, even where that news is still on its way.
FORWARD: dict[str, frozenset[str]] = {
    "created": frozenset({"authorized", "paid", "failed", "refunded"}),
    "authorized": frozenset({"paid", "failed", "refunded"}),
    "failed": frozenset({"paid", "refunded"}),
    "paid": frozenset({"refunded"}),
    "refunded": frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an event did to the ledger. task_id: the fulfilment that it started, if it did."""

    verdict: Verdict
    changed: bool = False
    reason: str = ""
    transaction_id: UUID | None = None
    task_id: UUID | None = None


def apply(provider: str, event: Event, delivery_id: UUID) -> Outcome:
    """Bring the order's row up to the event, and start its fulfilment when it becomes paid.

    Runs inside the caller's transaction and keeps the order's row locked until that ends, so
    deliveries about one order take turns. The event has a status.
    """
    status = str(event.status)
    new_id = _insert(provider, event)
    if new_id is not None:
        task_id = _fulfil(new_id, provider, event, delivery_id) if status == "paid" else None
        if task_id is not None:
            Transaction.objects.filter(id=new_id).update(task_id=task_id)
        return Outcome(
            verdict=Verdict.ACCEPTED, changed=True, transaction_id=new_id, task_id=task_id
        )
    row = Transaction.objects.select_for_update(no_key=True).get(order_id=event.order_id)
    if differing := differences(row, provider, event):
        return Outcome(verdict=Verdict.MISMATCH, reason=differing, transaction_id=row.id)
    if status not in FORWARD[row.status]:
        return _unchanged(row, status)
    task_id = _fulfil(row.id, provider, event, delivery_id) if status == "paid" else None
    _advance(row, status, event, task_id)
    return Outcome(verdict=Verdict.ACCEPTED, changed=True, transaction_id=row.id, task_id=task_id)


def differences(row: Transaction, provider: str, event: Event) -> str:
    """What the event says otherwise than the ledger, with both values; empty if they agree.

    An e-mail address that either side does not know is no difference, nor is its case.
    """
    pairs: list[tuple[str, object, object]] = [
        ("provider", row.provider, provider),
        ("amount", row.amount, event.amount),
        ("currency", row.currency, event.currency),
    ]
    if row.email and event.email and row.email.casefold() != event.email.casefold():
        pairs.append(("email", row.email, event.email))
    return "; ".join(
        f"{name}: recorded {old}, delivered {new}" for name, old, new in pairs if old != new
    )


def _insert(provider: str, event: Event) -> UUID | None:
    """The new row's id, or None where the order is known already."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions"
            " (provider, order_id, payment_id, email, amount, currency, status)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (order_id) DO NOTHING RETURNING id",
            [
                provider,
                event.order_id,
                event.payment_id,
                event.email,
                event.amount,
                event.currency,
                event.status,
            ],
        )
        found = cursor.fetchone()
    return found[0] if found else None


def _unchanged(row: Transaction, status: str) -> Outcome:
    if status == row.status:
        return Outcome(
            verdict=Verdict.ACCEPTED,
            reason=f"The order is {status} already: nothing to do.",
            transaction_id=row.id,
        )
    return Outcome(
        verdict=Verdict.STALE,
        reason=f"The order is {row.status}; {status} came too late.",
        transaction_id=row.id,
    )


def _fulfil(transaction_id: UUID, provider: str, event: Event, delivery_id: UUID) -> UUID:
    return enqueue(
        FULFIL,
        {"transaction_id": str(transaction_id), "order_id": event.order_id},
        dedupe_key=f"{provider}:{event.order_id}",
        correlation_id=str(delivery_id),
    ).id


def _advance(row: Transaction, status: str, event: Event, task_id: UUID | None) -> None:
    Transaction.objects.filter(id=row.id).update(
        status=status,
        payment_id=event.payment_id or row.payment_id,
        email=row.email or event.email,
        task_id=task_id or row.task_id,
        updated_at=DatabaseClock(),
    )
