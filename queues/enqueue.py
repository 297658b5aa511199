"""The one door through which work enters the queue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from django.db import DataError, IntegrityError, connection, transaction

from queues.claims import query
from queues.clean import dumps
from queues.models import MAX_JSON_BYTES
from queues.new_task import EnqueueError, NewTask

__all__ = ["EnqueueError", "Enqueued", "NewTask", "enqueue", "enqueue_many"]

ENQUEUE = """SELECT id, created FROM enqueue_task(
    %s, %s::jsonb, %s, %s, coalesce(%s, clock_timestamp() + %s::interval), %s, %s::uuid[], %s, %s, %s,
    make_interval(secs => %s), %s)"""
BATCH = 2000
BATCH_BYTES = 8 * 1024 * 1024


class Enqueued(NamedTuple):
    """A task's id, and whether this call made it (False: its dedupe key was live already)."""

    id: UUID
    created: bool


def enqueue(
    type: str,
    payload: Any = None,
    *,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | timedelta | None = None,
    dedupe_key: str | None = None,
    after: Sequence[UUID] = (),
    on_failure: str = "cancel",
    tenant_id: str | None = None,
    max_attempts: int | None = None,
    timeout: timedelta | float | None = None,
    correlation_id: str | None = None,
) -> Enqueued:
    """Put one task in the queue, inside the caller's transaction, and return its id.

    The task runs only if that transaction commits. `payload` is any JSON value, at most 1 MiB.
    Queue, priority, max_attempts and timeout (seconds or timedelta) default to the handler's, then
    to the queue's. `run_at`: not before this moment, or this long from now. `dedupe_key`: while a
    task of the same tenant, type and key is live, that task's id is returned instead. `after`: run
    only when these tasks have completed; when one fails or is cancelled, `on_failure` says "cancel"
    this one too or "run" it anyway. A type without a handler here is accepted: workers in other
    languages have theirs.

    Raises EnqueueError. One that only the database can see (unknown queue or predecessor) leaves
    an open transaction unusable, as every database error does: let it roll back.
    """
    fields = NewTask(
        type=type,
        payload=payload,
        queue=queue,
        priority=priority,
        run_at=run_at,
        dedupe_key=dedupe_key,
        after=after,
        on_failure=on_failure,
        tenant_id=tenant_id,
        max_attempts=max_attempts,
        timeout=timeout,
        correlation_id=correlation_id,
    ).checked()
    run_at = fields.get("run_at")
    delay = run_at if isinstance(run_at, timedelta) else None
    try:
        [row] = query(
            ENQUEUE,
            [
                fields["type"],
                fields["payload"],
                fields["queue"],
                fields.get("priority"),
                None if delay is not None else run_at,
                delay,
                fields.get("dedupe_key"),
                fields.get("after"),
                on_failure,
                fields.get("tenant_id"),
                fields.get("max_attempts"),
                fields.get("timeout"),
                fields.get("correlation_id"),
            ],
        )
    except (IntegrityError, DataError) as error:
        raise EnqueueError(_sentence(error)) from error
    return Enqueued(*row)


def enqueue_many(tasks: Iterable[NewTask]) -> list[Enqueued]:
    """Enqueue many tasks, all or none, and return them in the order given.

    Raises EnqueueError naming the first bad task by its number, from 1.
    """
    made: list[Enqueued] = []
    numbered = enumerate(tasks, start=1)
    with transaction.atomic():
        while batch := list(islice(numbered, BATCH)):
            rows: list[str] = []
            size = 0
            for number, task in batch:
                rows.append(_json_row(number, task))
                size += len(rows[-1])
                if size > BATCH_BYTES:
                    made += _insert(rows, first=number - len(rows) + 1)
                    rows, size = [], 0
            made += _insert(rows, first=len(made) + 1)
    return made


def _insert(rows: list[str], first: int) -> list[Enqueued]:
    """Insert rows that are numbered from `first`. Raises EnqueueError with the number of a bad one."""
    if not rows:
        return []
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT * FROM enqueue_tasks(%s::jsonb)", [f"[{','.join(rows)}]"])
            found = cursor.fetchall()
    except (IntegrityError, DataError) as error:
        if len(rows) == 1:
            raise EnqueueError(re.sub(r"^task 1: ", "", _sentence(error)), first) from error
        # Nothing of these was written. Smaller steps find the one to blame.
        half = len(rows) // 2
        return _insert(rows[:half], first) + _insert(rows[half:], first + half)
    return [Enqueued(id, created) for _, id, created in sorted(found)]


def _json_row(number: int, task: NewTask) -> str:
    try:
        fields = task.checked()
    except EnqueueError as error:
        raise EnqueueError(error.reason, number) from error
    payload = fields.pop("payload")
    if isinstance(run_at := fields.get("run_at"), datetime):
        fields["run_at"] = run_at.isoformat()
    elif isinstance(run_at, timedelta):
        del fields["run_at"]
        fields["delay"] = run_at.total_seconds()
    if "after" in fields:
        fields["after"] = [str(id) for id in fields["after"]]
    return f'{dumps(fields)[:-1]},"payload":{payload}}}'


def _sentence(error: Exception) -> str:
    """The database's message and hint as one text for people."""
    diag = getattr(error.__cause__, "diag", None)
    if getattr(diag, "constraint_name", None) == "tasks_payload_at_most_1_mib":
        return f"the payload is larger than {MAX_JSON_BYTES:,} bytes as PostgreSQL stores it."
    parts = [
        getattr(diag, "message_primary", None) or str(error),
        getattr(diag, "message_hint", None),
    ]
    return ". ".join(part.rstrip(".") for part in parts if part) + "."
