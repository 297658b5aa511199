"""Many tasks at once, streamed into the table with COPY."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from queues.claims import query
from queues.new_task import NewTask, payload_text

CHUNK = 1000
COPY = """COPY tasks (id, queue, type, payload, status, priority, run_at, tenant_id, max_attempts, timeout,
    correlation_id) FROM STDIN"""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def enqueue_batch(
    type: str,
    payloads: Iterable[Any],
    *,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | timedelta | None = None,
    tenant_id: str | None = None,
    max_attempts: int | None = None,
    timeout: timedelta | float | None = None,
    correlation_id: str | None = None,
) -> list[UUID]:
    """Enqueue a task of one type for each payload, all or none, and return their ids in that order.

    The fastest way to enqueue many: what they share is checked once. The arguments are enqueue()'s.
    Raises EnqueueError; for a payload that PostgreSQL refuses, without its number.
    """
    fields = NewTask(
        type=type,
        queue=queue,
        priority=priority,
        run_at=run_at,
        tenant_id=tenant_id,
        max_attempts=max_attempts,
        timeout=timeout,
        correlation_id=correlation_id,
    ).checked()
    ids: list[UUID] = []
    waiting = iter(payloads)
    with transaction.atomic(), Stream(fields["queue"]) as stream:
        shared = stream.after_payload(fields)
        while chunk := [
            payload_text(value, len(ids) + n) for n, value in enumerate(islice(waiting, CHUNK), 1)
        ]:
            ids += stream.write(fields["type"], chunk, shared)
    return ids


class Stream:
    """Rows on their way into `tasks`, for one queue, inside a transaction.

    Entering it looks the queue up (IntegrityError when it does not exist) and asks the database for
    its clock; leaving it gives the rounds of a fair queue and wakes the workers.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._count = 0

    def __enter__(self) -> Stream:
        [(self._fair, self._max_attempts, self._now)] = query(
            "SELECT q.fair, q.default_max_attempts, clock_timestamp() FROM know_queue(%s) q",
            [self.queue],
        )
        self._ids: list[UUID] = []
        self._cursor = connection.cursor()
        self._copying = self._cursor.copy(COPY)
        self._copy = self._copying.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        try:
            with connection.wrap_database_errors:
                self._copying.__exit__(kind, *error)
        finally:
            self._cursor.close()
        if kind is None:
            query("SELECT set_config('opsconsole.checked_queue', '', true)", [])
            if self._fair:
                query("SELECT assign_rounds(%s::uuid[])", [self._ids])
            query("SELECT wake_workers(%s)", [self.queue])

    def after_payload(self, fields: dict[str, Any]) -> str:
        """What stands behind the payload in the rows of tasks with these fields."""
        run_at = fields.get("run_at")
        if isinstance(run_at, timedelta):
            run_at = self._now + run_at
        timeout = fields.get("timeout")
        run_at = run_at or self._now
        columns = [
            "scheduled" if run_at > self._now else "pending",
            fields.get("priority", 0),
            run_at,
            fields.get("tenant_id"),
            fields.get("max_attempts", self._max_attempts),
            None if timeout is None else f"{timeout} seconds",
            fields.get("correlation_id"),
        ]
        return "\t".join(_escaped(value) for value in columns) + "\n"

    def write(self, type: str, payloads: list[str], after_payload: str) -> list[UUID]:
        """Send one row a payload (JSON text) and return their ids."""
        ids = list(task_ids(self._now, self._count, len(payloads)))
        middle = f"\t{_escaped(self.queue)}\t{_escaped(type)}\t"
        end = f"\t{after_payload}"
        rows = [
            f"{id.int:032x}{middle}{payload if no_escape(payload) else _escaped(payload)}{end}"
            for id, payload in zip(ids, payloads, strict=True)
        ]
        with connection.wrap_database_errors:
            self._copy.write("".join(rows))
        self._count += len(ids)
        if self._fair:
            self._ids += ids
        return ids


def task_ids(now: datetime, first: int, count: int) -> Iterator[UUID]:
    """Ids as new_task_id() makes them, in order: the n-th as if made n microseconds after `now`."""
    start = round(now.timestamp() * 1_000_000) + first
    random = int.from_bytes(os.urandom(8 * count))
    for us in range(start, start + count):
        time = us // 1000 << 16 | 0x7000 | us % 1000 * 4096 // 1000
        low = random & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        random >>= 64
        yield UUID(int=time << 64 | low)


def no_escape(text: str) -> bool:
    """JSON text holds no raw control characters: only a backslash needs doubling."""
    return "\\" not in text


def _escaped(value: Any) -> str:
    return "\\N" if value is None else str(value).translate(_ESCAPES)
