"""Keyset pages: cut by the last row seen, never by OFFSET, so page 10,000 costs what page 1 does."""

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
from django.db.models import Model, Q, QuerySet

from queues.models import CALENDAR

PAGE_SIZE = 50
COUNT_CAP = 10_000

# The fields of an order, each a moment or the id, and whether it descends.
Order = tuple[tuple[str, ...], bool]


@dataclass(frozen=True)
class Page:
    """One page of rows, and the cursors of its neighbours where there are any."""

    rows: Sequence[Any]
    newer: str | None
    older: str | None


def page_of(rows: QuerySet[Any], order: Order, cursor: str = "") -> Page:
    """The page after (or, for a cursor that begins with '-', before) the row of the cursor.

    A cursor is a place in the order, not a row that must still exist. One that cannot be read gives
    the first page.
    """
    fields, descending = order
    back, place = _read(cursor, fields)
    beyond = rows.filter(_beyond(fields, place, descending != back)) if place else rows
    ordered = beyond.order_by(*(f"-{field}" if descending != back else field for field in fields))
    found = list(ordered[: PAGE_SIZE + 1])
    more = len(found) > PAGE_SIZE
    found = found[:PAGE_SIZE]
    if back and not more:
        # The way back has reached the top: show the first page whole, with what came since.
        return page_of(rows, order)
    if back:
        found.reverse()
    if not found:
        # Nothing is left beyond the cursor: show what there is.
        return page_of(rows, order) if place else Page([], None, None)
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


def _write(direction: str, row: Model, fields: Sequence[str]) -> str:
    values = [getattr(row, field) for field in fields]
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


def estimated_total(model: type[Model]) -> int:
    """The planner's idea of how many rows there are: free, and honest as an estimate."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c"
            " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE c.relkind = 'r' AND %s::regclass IN (c.oid, i.inhparent)",
            [model._meta.db_table],
        )
        [count] = cursor.fetchone()
    return int(count)


def total_of(rows: QuerySet[Any], *, whole: bool) -> tuple[int, bool]:
    """As count_of(); where `rows` are the whole of a large table, its estimate."""
    if whole and (total := estimated_total(rows.model)) > COUNT_CAP:
        return total, False
    return count_of(rows)


def first_id(moment: datetime) -> UUID:
    """The least id that new_task_id() makes from that moment on: a span of time is a range of ids,
    in the order that every list's index ends with."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80)
