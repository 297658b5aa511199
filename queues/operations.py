"""What people do to tasks: each act changes the tasks and writes who, why and what in one commit.

Console and admin meet here. Every verb takes many tasks, does what is legal for each, and says of
the others why they were left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction
from psycopg.errors import ForeignKeyViolation, InvalidParameterValue
from psycopg.sql import SQL

from queues import guards
from queues.claims import query, through_conflicts
from queues.clean import storable_text
from queues.models import Operation

MAX_TASKS = 1000

# The verb, its operation and the operation's items are one statement, so that none is without the
# others and no row of the answer passes through Python. Tasks that a guard refuses are items, too.
RECORD = SQL("""
WITH acted AS MATERIALIZED (
    SELECT v.id, v.outcome, v.before, v.after, v.note FROM {verb} v
    UNION ALL
    SELECT r.id, 'skipped', r.status, r.status, r.note
      FROM (SELECT g.id, g.note, coalesce((SELECT t.status FROM tasks t WHERE t.id = g.id), '') AS status
              FROM unnest(%s::uuid[], %s::text[]) g(id, note)) r),
operation AS (
    INSERT INTO operations (verb, actor, reason, requested, done, skipped)
    SELECT %s, %s, %s, count(*), count(*) FILTER (WHERE outcome = 'done'),
           count(*) FILTER (WHERE outcome = 'skipped')
      FROM acted RETURNING id
), items AS (
    INSERT INTO operation_items (operation_id, task_id, outcome, before, after, note)
    SELECT o.id, a.id, a.outcome, a.before, a.after, a.note FROM operation o, acted a ORDER BY a.id)
SELECT id FROM operation
""")

# Each step is a look into the index, also for a long chain.
WITH_DEPENDANTS = """
WITH RECURSIVE reach(id) AS (
    SELECT unnest(%s::uuid[])
    UNION
    SELECT d.task_id
      FROM reach r, LATERAL (SELECT e.task_id FROM task_dependencies e
                              WHERE e.predecessor_id = r.id AND e.outcome = 'cancelled' OFFSET 0) d)
SELECT r.id FROM reach r ORDER BY r.id
"""


class OperationError(ValueError):
    """The act was refused as a whole; the message says what to do instead."""


def retry(
    ids: Sequence[UUID],
    *,
    actor: str,
    reason: str = "",
    dependants: bool = False,
    overrides: Collection[str] = (),
) -> Operation:
    """Make failed and cancelled tasks pending again, attempts from 0, their history kept.

    dependants: bring back the tasks that were cancelled because of these, too. What a guard refuses
    (guards.py) is left alone, here and in requeue(), rescue() and run_again(), unless `overrides`
    holds the guard's permission; that needs a reason.
    """
    call = "retry_tasks(%s::uuid[])"
    return _record("retry", ids, actor, reason, call, [], overrides, dependants)


def requeue(
    ids: Sequence[UUID],
    *,
    actor: str,
    reason: str = "",
    leases: Sequence[int] | None = None,
    force: bool = False,
    overrides: Collection[str] = (),
) -> Operation:
    """Make scheduled and stuck tasks pending now, attempts kept.

    A processing task is taken from its worker only when that worker is gone or the timeout has
    passed, or with `force`, which needs a reason. `leases`: those that the person saw, in the order
    of ids; a task claimed anew since then is left alone.
    """
    if force and not reason.strip():
        raise OperationError("Taking a task from a living worker needs a reason.")
    call = "requeue_tasks(%s::uuid[], %s::bigint[], %s, %s)"
    arguments = [leases and list(leases), force, settings.QUEUE_SILENCE]
    return _record("requeue", ids, actor, reason, call, arguments, overrides)


def rescue(
    ids: Sequence[UUID],
    *,
    actor: str,
    reason: str = "",
    leases: Sequence[int] | None = None,
    overrides: Collection[str] = (),
) -> Operation:
    """Make stuck tasks pending now, attempts kept, counted as lost once more.

    `leases`: as for requeue().
    """
    call = "rescue_tasks(%s::uuid[], %s::bigint[], %s)"
    arguments = [leases and list(leases), settings.QUEUE_SILENCE]
    return _record("rescue", ids, actor, reason, call, arguments, overrides)


def release(
    ids: Sequence[UUID], *, actor: str, reason: str, leases: Sequence[int] | None = None
) -> Operation:
    """Take processing tasks from their workers, living or not, the attempt not charged.

    It needs a reason. The worker is told at its next heartbeat. `leases`: as for requeue().
    """
    call = "release_held(%s::uuid[], %s, %s::bigint[])"
    return _record("release", ids, actor, reason, call, [reason, leases and list(leases)])


def cancel(ids: Sequence[UUID], *, actor: str, reason: str = "") -> Operation:
    """Cancel tasks that wait or run, for good; what waited on them is settled."""
    return _record("cancel", ids, actor, reason, "cancel_tasks(%s::uuid[], %s)", [reason])


def set_priority(ids: Sequence[UUID], priority: int, *, actor: str, reason: str = "") -> Operation:
    """Give waiting tasks another priority, -100 to 100; higher runs first."""
    return _record(
        "set priority", ids, actor, reason, "set_priority(%s::uuid[], %s::integer)", [priority]
    )


def move(ids: Sequence[UUID], queue: str, *, actor: str, reason: str = "") -> Operation:
    """Put waiting tasks into another queue that exists; they keep their state."""
    return _record("move", ids, actor, reason, "move_tasks(%s::uuid[], %s)", [queue])


def run_again(
    ids: Sequence[UUID], *, actor: str, reason: str = "", overrides: Collection[str] = ()
) -> Operation:
    """Enqueue completed tasks once more, each as a new task of the same trail.

    An item's note is the new task's id.
    """
    return _record("run again", ids, actor, reason, "run_again(%s::uuid[])", [], overrides)


def pause(queue: str, *, actor: str, reason: str = "", until: datetime | None = None) -> Operation:
    """Stop claims from a queue, until then or until it is resumed; what runs goes on.

    A queue that is paused already gets the new reason and end.
    """
    reason = storable_text(reason)[:2000]
    return _turn(
        f"pause queue {queue}",
        actor,
        reason,
        "pause_queue(%s, %s, %s, %s)",
        [queue, reason, actor, until],
    )


def resume(queue: str, *, actor: str) -> Operation:
    """End a queue's pause."""
    return _turn(f"resume queue {queue}", actor, "", "resume_queue(%s)", [queue])


def _turn(verb: str, actor: str, reason: str, call: str, arguments: list[Any]) -> Operation:
    with transaction.atomic():
        [(queue, outcome, note)] = _said(
            SQL("SELECT queue, outcome, note FROM {verb}"), call, arguments
        )
        if outcome == "skipped":
            raise OperationError(f"Queue {queue}: {note}.")
        return Operation.objects.create(
            verb=verb, actor=actor, reason=reason, requested=0, done=0, skipped=0
        )


def _record(
    verb: str,
    ids: Sequence[UUID],
    actor: str,
    reason: str,
    call: str,
    arguments: list[Any],
    overrides: Collection[str] = (),
    dependants: bool = False,
) -> Operation:
    if not ids:
        raise OperationError("No task was selected.")
    if len(ids) > MAX_TASKS:
        raise OperationError(
            f"More than {MAX_TASKS:,} tasks were selected; one act takes that many."
        )
    if overrides and not reason.strip():
        raise OperationError("Doing it anyway needs a reason.")
    reason = storable_text(reason)[:2000]
    arguments = [storable_text(a)[:2000] if isinstance(a, str) else a for a in arguments]

    def act() -> Operation:
        with transaction.atomic():
            asked = _with_dependants(ids) if dependants else ids
            return _carry_out(verb, asked, actor, reason, call, arguments, overrides)

    return through_conflicts(act)


def _with_dependants(ids: Sequence[UUID]) -> list[UUID]:
    return [id for (id,) in query(WITH_DEPENDANTS, [list(ids)])]


def _carry_out(
    verb: str,
    ids: Sequence[UUID],
    actor: str,
    reason: str,
    call: str,
    arguments: list[Any],
    overrides: Collection[str],
) -> Operation:
    """Decide and act, in the caller's transaction."""
    refused = guards.refusals(verb, ids)
    anyway = {id for id, refusal in refused.items() if refusal.permission in overrides}
    if anyway:
        reason += f" (anyway, though {_told([refused[id].reason for id in anyway])})"
    left = {id: refusal.reason for id, refusal in refused.items() if id not in anyway}
    # A null keeps the leases beside their ids; the verbs pass over it.
    asked = [None if id in left else id for id in ids]
    told = [list(left), list(left.values())]
    [(made,)] = _said(RECORD, call, [asked, *arguments, *told, verb, actor, reason])
    return Operation.objects.get(pk=made)


def _told(reasons: list[str]) -> str:
    first, *more = sorted(reasons)
    return f"{first}, and {len(more)} more alike" if more else first


def _said(sql: SQL, call: str, arguments: list[Any]) -> list[tuple[Any, ...]]:
    """Run a verb; an argument that it refuses is an OperationError with the database's words."""
    try:
        return query(sql.format(verb=SQL(call)).as_string(), arguments)
    except DatabaseError as error:
        cause = error.__cause__
        if isinstance(cause, InvalidParameterValue | ForeignKeyViolation):
            told = [cause.diag.message_primary, cause.diag.message_hint]
            raise OperationError(" ".join(filter(None, told))) from error
        raise
