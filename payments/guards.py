"""Safe retry: a money task must not do again what its transaction has settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from payments.handlers import SEND_RECEIPT
from payments.ledger import FULFIL
from payments.models import Transaction
from queues import guards
from queues.database import query
from queues.lookup import find_tasks
from queues.models import AnyTask

MONEY = (FULFIL, SEND_RECEIPT)
Status = Transaction.Status


@dataclass(frozen=True)
class _Task:
    """A money task. `sent`: it has mailed its receipt."""

    id: UUID
    type: str
    correlation_id: str | None
    transaction_id: UUID
    sent: bool


def connect() -> None:
    """Plug the guard into the operators' verbs."""
    guards.register(settled, override="payments.override_settled")


def settled(verb: str, ids: Sequence[UUID]) -> dict[UUID, str]:
    """The money tasks that must be left alone, and why: the order was fulfilled or the receipt sent
    already, or the money is not there (the payment failed, or all of it went back).

    The transactions stay as they are judged until the caller's commit. One that is being changed at
    this moment is not waited for: its tasks are left alone, too.
    """
    tasks = _money_tasks(ids)
    if not tasks:
        return {}
    wanted = list({task.transaction_id for task in tasks})
    rows = {
        row[0]: row
        for row in query(
            "SELECT id, order_id, status, fulfilled_at FROM transactions"
            " WHERE id = ANY (%s::uuid[]) ORDER BY id FOR SHARE SKIP LOCKED",
            [wanted],
        )
    }
    missing = [id for id in wanted if id not in rows]
    busy = set(Transaction.objects.filter(id__in=missing).values_list("id", flat=True))
    receipted = _receipted(tasks)
    found: dict[UUID, str] = {}
    for task in tasks:
        if task.transaction_id in busy:
            found[task.id] = "its transaction is being changed at this moment"
        elif row := rows.get(task.transaction_id):
            _, order, status, fulfilled = row
            if reason := _reason(task.type, status, fulfilled, task.transaction_id in receipted):
                found[task.id] = reason.format(order)
    return found


def _reason(type: str, status: str, fulfilled: Any, receipted: bool) -> str:
    if type == FULFIL and fulfilled:
        return "order {} was fulfilled already"
    if status == Status.FAILED:
        return "the payment of order {} failed"
    if status == Status.REFUNDED:
        return "order {} was refunded"
    if type == SEND_RECEIPT and receipted:
        return "the receipt of order {} was sent already"
    return ""


def _money_tasks(ids: Sequence[UUID]) -> list[_Task]:
    money = [task.id for task in find_tasks(ids).values() if task.type in MONEY]
    return _read(AnyTask.objects.filter(pk__in=money)) if money else []


def _receipted(tasks: Sequence[_Task]) -> set[UUID]:
    """The transactions whose receipt was sent, by one of these tasks or another on their trails."""
    receipts = [task for task in tasks if task.type == SEND_RECEIPT]
    trails = {task.correlation_id for task in receipts if task.correlation_id}
    if trails:
        others = AnyTask.objects.filter(
            correlation_id__in=trails, type=SEND_RECEIPT, status="completed"
        )
        receipts += _read(others)
    return {task.transaction_id for task in receipts if task.sent}


def _read(rows: Any) -> list[_Task]:
    """Those that name a transaction; of an id that was archived twice the later task."""
    fields = ("id", "type", "correlation_id", "payload", "status", "result")
    found: dict[UUID, _Task] = {}
    for id, type, trail, payload, status, result in rows.order_by(
        "archived", "-completed_at"
    ).values_list(*fields):
        transaction_id = transaction_named_in(payload)
        if transaction_id and id not in found:
            sent = status == "completed" and isinstance(result, dict) and result.get("sent") is True
            found[id] = _Task(id, type, trail, transaction_id, sent)
    return list(found.values())


def transaction_named_in(payload: Any) -> UUID | None:
    """The transaction that a money task's payload names."""
    given = payload.get("transaction_id") if isinstance(payload, dict) else None
    try:
        return UUID(given) if isinstance(given, str) else None
    except ValueError:
        return None
