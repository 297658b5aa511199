"""The one door through which work enters the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from django.db import DataError, IntegrityError, transaction

from queues.bulk import Stream
from queues.claims import query
from queues.clean import dumps
from queues.new_task import EnqueueError, NewTask

__all__ = ["EnqueueError", "Enqueued", "NewTask", "enqueue", "enqueue_many"]

ENQUEUE = """SELECT id, created FROM enqueue_task(
    %s, %s::jsonb, %s, %s, coalesce(%s, clock_timestamp() + %s::interval), %s, %s::uuid[], %s, %s, %s,
    make_interval(secs => %s), %s)"""
BATCH = 2000
BATCH_BYTES = 8 * 1024 * 1024
WORTH_A_STREAM = 30


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
        raise EnqueueError.of_database(error) from error
    return Enqueued(*row)


def enqueue_many(tasks: Iterable[NewTask]) -> list[Enqueued]:
    """Enqueue many tasks, all or none, and return them in the order given.

    Raises EnqueueError naming the first bad task by its number, from 1.
    """
    made: list[Enqueued] = []
    with transaction.atomic():
        for part in _parts(tasks):
            made += _enqueue_part(part, first=len(made) + 1)
    return made


class _Checked(NamedTuple):
    """One of many tasks, checked: its payload as JSON text, and all else of it."""

    payload: str
    fields: dict[str, Any]

    @property
    def is_plain(self) -> bool:
        return "dedupe_key" not in self.fields and "after" not in self.fields


def _parts(tasks: Iterable[NewTask]) -> Iterator[list[_Checked]]:
    """The tasks, checked, in parts of BATCH tasks or BATCH_BYTES."""
    part: list[_Checked] = []
    size = 0
    for number, task in enumerate(tasks, start=1):
        try:
            fields = task.checked()
        except EnqueueError as error:
            raise EnqueueError(error.reason, number) from error
        payload = fields.pop("payload")
        part.append(_Checked(payload, fields))
        size += len(payload)
        if len(part) == BATCH or size > BATCH_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _enqueue_part(part: list[_Checked], first: int) -> list[Enqueued]:
    """Enqueue tasks that are numbered from `first`: those without key and predecessors are streamed.
    Raises EnqueueError with the number of a bad one."""
    if len(part) < WORTH_A_STREAM:
        return _insert(part, first)
    made: dict[int, Enqueued] = {}
    rest = [place for place, task in enumerate(part) if not task.is_plain]
    try:
        with transaction.atomic():
            for place, id in _stream(part):
                made[place] = Enqueued(id, True)
            made.update(zip(rest, _insert([part[place] for place in rest], first), strict=True))
    except (EnqueueError, IntegrityError, DataError):
        # Nothing of these was written. This finds the one to blame.
        return _insert(part, first)
    return [made[place] for place in range(len(part))]


def _stream(part: list[_Checked]) -> Iterator[tuple[int, UUID]]:
    """Stream the plain ones among the tasks, queue by queue; the place of each, and its id."""
    queues: dict[str, list[int]] = {}
    for place, task in enumerate(part):
        if task.is_plain:
            queues.setdefault(task.fields["queue"], []).append(place)
    for queue in sorted(queues):
        with Stream(queue) as stream:
            for fields, alike in groupby(queues[queue], lambda place: part[place].fields):
                places = list(alike)
                payloads = [part[place].payload for place in places]
                ids = stream.write(fields["type"], payloads, stream.after_payload(fields))
                yield from zip(places, ids, strict=True)


def _insert(part: list[_Checked], first: int) -> list[Enqueued]:
    """The same in one statement of JSON, which takes tasks of every kind."""
    if not part:
        return []
    try:
        with transaction.atomic():
            rows = ",".join(map(_json, part))
            found = query("SELECT * FROM enqueue_tasks(%s::jsonb)", [f"[{rows}]"])
    except (IntegrityError, DataError) as error:
        if len(part) == 1:
            raise EnqueueError.of_database(error, first) from error
        # Smaller steps find the one to blame.
        half = len(part) // 2
        return _insert(part[:half], first) + _insert(part[half:], first + half)
    return [Enqueued(id, created) for _, id, created in sorted(found)]


def _json(task: _Checked) -> str:
    fields = dict(task.fields)
    if isinstance(run_at := fields.get("run_at"), datetime):
        fields["run_at"] = run_at.isoformat()
    elif isinstance(run_at, timedelta):
        del fields["run_at"]
        fields["delay"] = run_at.total_seconds()
    if "after" in fields:
        fields["after"] = [str(id) for id in fields["after"]]
    return f'{dumps(fields)[:-1]},"payload":{task.payload}}}'
