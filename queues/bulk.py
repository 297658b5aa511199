"""Many tasks at once, streamed into the table with COPY."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import DataError, IntegrityError, connection, transaction

from queues.claims import query
from queues.models import CALENDAR, MAX_JSON_BYTES
from queues.new_task import TOO_LARGE, EnqueueError, NewTask, payload_text

PART = 10_000
CHUNK = 1_000
# A payload may take several times more as jsonb than as text.
PERHAPS_TOO_LARGE = MAX_JSON_BYTES // 10
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
    try:
        with transaction.atomic():
            # Taken before the stream begins: what yields the payloads may ask the database, too.
            while part := list(islice(waiting, PART)):
                with Stream(fields["queue"]) as stream:
                    after_payload = stream.after_payload(fields)
                    for start in range(0, len(part), CHUNK):
                        texts = [
                            payload_text(value, number)
                            for number, value in enumerate(
                                part[start : start + CHUNK], len(ids) + 1
                            )
                        ]
                        ids += stream.write(fields["type"], texts, after_payload)
    except (IntegrityError, DataError) as error:
        raise EnqueueError.of_database(error) from error
    return ids


class Stream:
    """Rows on their way into `tasks`, for one queue, inside a transaction.

    Entering it looks the queue up (IntegrityError when it does not exist) and asks the database for
    its clock; leaving it gives the rounds of a fair queue and wakes the workers. Between the two the
    connection takes nothing else.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._count = 0
        self._now = datetime.max
        self._rows: list[str] = []
        self._large: list[UUID] = []

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
            if kind is None:
                self._send()
            with connection.wrap_database_errors:
                self._copying.__exit__(kind, *error)
        finally:
            self._cursor.close()
        if kind is None:
            query("SELECT set_config('opsconsole.checked_queue', '', true)", [])
            if self._large:
                self._check_large()
            if self._fair:
                query("SELECT assign_rounds(%s::uuid[])", [self._ids])
            query("SELECT wake_workers(%s)", [self.queue])

    def _check_large(self) -> None:
        """Raises EnqueueError for a payload above the limit: only the database knows its size."""
        if query(
            "SELECT FROM tasks WHERE id = ANY (%s::uuid[])"
            " AND jsonb_too_large(jsonb_build_array(payload) -> 0) LIMIT 1",
            [self._large],
        ):
            raise EnqueueError(TOO_LARGE)

    def after_payload(self, fields: dict[str, Any]) -> str:
        """What stands behind the payload in the rows of tasks with these fields (NewTask.checked).
        Raises EnqueueError for a delay that leaves the calendar."""
        run_at = self._moment(fields.get("run_at"))
        timeout = fields.get("timeout")
        return (
            f"{'scheduled' if run_at > self._now else 'pending'}\t{fields.get('priority', 0)}\t{run_at}\t"
            f"{_escaped(fields.get('tenant_id'))}\t{fields.get('max_attempts', self._max_attempts)}\t"
            f"{_escaped(timeout and f'{timeout:.6f} seconds')}\t"
            f"{_escaped(fields.get('correlation_id'))}\n"
        )

    def _moment(self, run_at: datetime | timedelta | None) -> datetime:
        if not isinstance(run_at, timedelta):
            return run_at or self._now
        if not CALENDAR[0] - self._now < run_at < CALENDAR[1] - self._now:
            raise EnqueueError(f"run_at is out of range: {run_at} from now.")
        return self._now + run_at

    def write(self, type: str, payloads: Sequence[str], after_payload: str) -> list[UUID]:
        """Send one row a payload (JSON text) and return their ids."""
        ids = list(task_ids(self._now, self._count, len(payloads)))
        middle = f"\t{_escaped(self.queue)}\t{_escaped(type)}\t"
        end = f"\t{after_payload}"
        self._rows += [
            f"{id.int:032x}{middle}{payload if no_escape(payload) else _escaped(payload)}{end}"
            for id, payload in zip(ids, payloads, strict=True)
        ]
        if len(self._rows) >= CHUNK:
            self._send()
        self._count += len(ids)
        self._large += [
            id for id, text in zip(ids, payloads, strict=True) if len(text) > PERHAPS_TOO_LARGE
        ]
        if self._fair:
            self._ids += ids
        return ids

    def _send(self) -> None:
        with connection.wrap_database_errors:
            self._copy.write("".join(self._rows))
        self._rows = []


def task_ids(now: datetime, first: int, count: int) -> Iterator[UUID]:
    """Ids as new_task_id() makes them, in order: the n-th as if made n microseconds after `now`."""
    start = round(now.timestamp() * 1_000_000) + first
    random = struct.unpack(f"{count}Q", os.urandom(8 * count))
    for us, bits in enumerate(random, start):
        time = us // 1000 << 16 | 0x7000 | us % 1000 * 4096 // 1000
        low = bits & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        yield UUID(int=time << 64 | low)


def no_escape(text: str) -> bool:
    """JSON text holds no raw control characters: only a backslash needs doubling."""
    return "\\" not in text


def _escaped(value: str | None) -> str:
    return "\\N" if value is None else value.translate(_ESCAPES)
