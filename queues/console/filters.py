"""The task list's filters, its order and its keyset pages.

Pages are cut by the last row seen, never by OFFSET, so page 10,000 costs what page 1 does. Each
status has the order that people look for in it, and an index that gives it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet
from django.http import QueryDict

from queues.clean import storable_text
from queues.lookup import UNREAD
from queues.models import CALENDAR, AnyTask, ArchivedTask, Task, TaskFields

PAGE_SIZE = 50
COUNT_CAP = 10_000

# Ascending or descending over the fields, by status; "" is every status.
ORDERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "": (("id",), True),
    "blocked": (("id",), True),
    "pending": (("id",), True),
    "scheduled": (("run_at", "id"), False),
    "processing": (("started_at", "id"), False),
    "completed": (("completed_at", "id"), True),
    "failed": (("completed_at", "id"), True),
    "cancelled": (("completed_at", "id"), True),
}
ARCHIVE_ORDER = (("completed_at", "id"), True)


@dataclass(frozen=True)
class TaskFilter:
    """What the URL asks for. Unknown values are kept out and named in `problems`.

    Lists show either the table of tasks or the archive, each in an order that its own indexes give;
    an id is looked for in both.
    """

    status: str = ""
    queue: str = ""
    type: str = ""
    worker: str = ""
    id: UUID | None = None
    archive: bool = False
    problems: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: QueryDict) -> TaskFilter:
        problems = []
        status = query.get("status", "")
        archive = bool(query.get("archive"))
        if archive and status in Task.LIVE:
            problems.append(f"No archived task is {status}; all are shown.")
            status = ""
        if status and status not in Task.Status.values:
            problems.append(f"There is no status {status!r}; all are shown.")
            status = ""
        id: UUID | None = None
        if text := query.get("id", "").strip():
            try:
                id = UUID(text)
            except ValueError:
                problems.append(f"{text!r} is no task id; give it whole.")
        names = {name: storable_text(query.get(name, "")) for name in ("queue", "type", "worker")}
        return cls(status=status, id=id, archive=archive, problems=tuple(problems), **names)

    def rows(self) -> QuerySet[Any]:
        model = AnyTask if self.id else ArchivedTask if self.archive else Task
        rows: QuerySet[Any] = model._default_manager.defer(*UNREAD)
        for field, value in {
            "status": self.status,
            "queue_id": self.queue,
            "type": self.type,
            "worker_id": self.worker,
            "id": self.id,
        }.items():
            if value:
                rows = rows.filter(**{field: value})
        return rows

    @property
    def order(self) -> tuple[tuple[str, ...], bool]:
        return ARCHIVE_ORDER if self.archive and not self.id else ORDERS[self.status]

    @property
    def statuses(self) -> list[str]:
        return [str(s) for s in (Task.FINAL if self.archive else Task.Status.values)]

    @property
    def is_empty(self) -> bool:
        return not (self.status or self.queue or self.type or self.worker or self.id)


@dataclass(frozen=True)
class Page:
    """One page of rows, and the cursors of its neighbours where there are any."""

    rows: Sequence[TaskFields]
    newer: str | None
    older: str | None


def page_of(chosen: TaskFilter, cursor: str = "") -> Page:
    """The page after (or, for a cursor that begins with '-', before) the row of the cursor.

    A cursor is a place in the order, not a row that must still exist. One that cannot be read gives
    the first page.
    """
    fields, descending = chosen.order
    back, place = _read(cursor, fields)
    rows = chosen.rows()
    if place:
        rows = rows.filter(_beyond(fields, place, descending != back))
    ordered = rows.order_by(*(f"-{field}" if descending != back else field for field in fields))
    found = list(ordered[: PAGE_SIZE + 1])
    more = len(found) > PAGE_SIZE
    found = found[:PAGE_SIZE]
    if back and not more:
        # The way back has reached the top: show the first page whole, with what came since.
        return page_of(chosen)
    if back:
        found.reverse()
    if not found:
        # Nothing is left beyond the cursor: show what there is.
        return page_of(chosen) if place else Page([], None, None)
    has_newer = bool(place)
    has_older = back or more
    return Page(
        found,
        newer=_write("-", found[0], fields) if has_newer else None,
        older=_write("", found[-1], fields) if has_older else None,
    )


def _beyond(fields: Sequence[str], place: Sequence[Any], descending: bool) -> Q:
    """Rows that come after `place`; the first clause bounds the index scan, the rest are exact."""
    than = "lt" if descending else "gt"
    if len(fields) == 1:
        return Q(**{f"{fields[0]}__{than}": place[0]})
    first, second = fields
    return Q(**{f"{first}__{than}e": place[0]}) & (
        Q(**{f"{first}__{than}": place[0]}) | Q(**{f"{second}__{than}": place[1]})
    )


def _write(direction: str, task: TaskFields, fields: Sequence[str]) -> str:
    values = [getattr(task, field) for field in fields]
    text = json.dumps([v.isoformat() if isinstance(v, datetime) else str(v) for v in values])
    return direction + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, fields: Sequence[str]) -> tuple[bool, list[Any] | None]:
    back, text = cursor.startswith("-"), cursor.removeprefix("-")
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        place = [
            UUID(value) if field == "id" else _moment(value)
            for field, value in zip(fields, values, strict=True)
        ]
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        return False, None
    return back, place


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not CALENDAR[0].year < moment.year < CALENDAR[1].year:
        raise ValueError(text)
    return moment


def count_of(rows: QuerySet[Any]) -> tuple[int, bool]:
    """How many rows, and whether that is all: counting ends at COUNT_CAP."""
    count = rows.order_by().values("pk")[: COUNT_CAP + 1].count()
    return min(count, COUNT_CAP), count <= COUNT_CAP


def estimated_total(*, archive: bool = False) -> int:
    """The planner's idea of how many tasks there are: free, and honest as an estimate."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c"
            " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE c.relkind = 'r' AND %s::regclass IN (c.oid, i.inhparent)",
            [(ArchivedTask if archive else Task)._meta.db_table],
        )
        [count] = cursor.fetchone()
    return int(count)
