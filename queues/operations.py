"""What people do to tasks: each act changes the tasks and writes who, why and what in one commit.

Console and admin meet here. Every verb takes many tasks, does what is legal for each, and says of
the others why they were left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from queues.claims import query, through_conflicts
from queues.clean import storable_text
from queues.models import Operation, OperationItem, Queue

MAX_TASKS = 1000


class OperationError(ValueError):
    """The act was refused as a whole; the message says what to do instead."""


def retry(
    ids: Sequence[UUID], *, actor: str, reason: str = "", dependants: bool = False
) -> Operation:
    """Make failed and cancelled tasks pending again, attempts from 0, their history kept.

    dependants: bring back the tasks that were cancelled because of these, too.
    """
    return _record(
        "retry", ids, actor, reason, "SELECT * FROM retry_tasks(%s::uuid[], %s)", [dependants]
    )


def requeue(
    ids: Sequence[UUID],
    *,
    actor: str,
    reason: str = "",
    leases: Sequence[int] | None = None,
    force: bool = False,
) -> Operation:
    """Make scheduled and stuck tasks pending now, attempts kept.

    A processing task is taken from its worker only when that worker is gone or the timeout has
    passed, or with `force`, which needs a reason. `leases`: those that the person saw, in the order
    of ids; a task claimed anew since then is left alone.
    """
    if force and not reason.strip():
        raise OperationError("Taking a task from a living worker needs a reason.")
    return _record(
        "requeue",
        ids,
        actor,
        reason,
        "SELECT * FROM requeue_tasks(%s::uuid[], %s::bigint[], %s, %s)",
        [leases and list(leases), force, settings.QUEUE_SILENCE],
    )


def cancel(ids: Sequence[UUID], *, actor: str, reason: str = "") -> Operation:
    """Cancel tasks that wait or run, for good; what waited on them is settled."""
    return _record(
        "cancel", ids, actor, reason, "SELECT * FROM cancel_tasks(%s::uuid[], %s)", [reason]
    )


def note_pause(queue: Queue, *, actor: str) -> Operation:
    """Write down that somebody paused or resumed a queue, in the transaction that does so."""
    return Operation.objects.create(
        verb=f"{'pause' if queue.paused else 'resume'} queue {queue.name}",
        actor=actor,
        reason=queue.paused_reason if queue.paused else "",
        requested=0,
        done=0,
        skipped=0,
    )


def _record(
    verb: str, ids: Sequence[UUID], actor: str, reason: str, sql: str, arguments: list[Any]
) -> Operation:
    if not ids:
        raise OperationError("No task was selected.")
    if len(ids) > MAX_TASKS:
        raise OperationError(
            f"More than {MAX_TASKS:,} tasks were selected; one act takes that many."
        )
    reason = storable_text(reason)[:2000]
    arguments = [storable_text(a) if isinstance(a, str) else a for a in arguments]
    return through_conflicts(lambda: _carry_out(verb, ids, actor, reason, sql, arguments))


def _carry_out(
    verb: str, ids: Sequence[UUID], actor: str, reason: str, sql: str, arguments: list[Any]
) -> Operation:
    with transaction.atomic():
        rows = query(sql, [list(ids), *arguments])
        done = sum(outcome == "done" for _, outcome, *_ in rows)
        operation = Operation.objects.create(
            verb=verb,
            actor=actor,
            reason=reason,
            requested=len(rows),
            done=done,
            skipped=len(rows) - done,
        )
        OperationItem.objects.bulk_create(
            OperationItem(
                operation=operation,
                task_id=id,
                outcome=outcome,
                before=before,
                after=after,
                note=note,
            )
            for id, outcome, before, after, note in rows
        )
    return operation
