"""Expressions and limits that the tables share."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.db.models import F, Func
from django.db.models.functions import Length
from django.db.models.lookups import LessThanOrEqual

MAX_JSON_BYTES = 1024 * 1024
CALENDAR = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


class TolerantDecoder(json.JSONDecoder):
    """Reads what Python can; JSON beyond its bounds, which PostgreSQL takes, stays text."""

    def decode(self, s: str, *args: Any) -> Any:
        try:
            return super().decode(s, *args)
        except (ValueError, RecursionError) as error:
            return f"(cannot be read: {error}) {s[:10_000]}"


class DatabaseClock(Func):
    """clock_timestamp(): the database's wall clock, also inside a long transaction."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


class NewTaskId(Func):
    """A time-ordered uuid (version 7) made by the database."""

    function = "new_task_id"
    output_field = models.UUIDField()


def at_most_bytes(column: str, limit: int) -> LessThanOrEqual:
    size = Func(F(column), function="pg_column_size", output_field=models.IntegerField())
    return LessThanOrEqual(size, limit)


def at_most_characters(column: str, limit: int) -> LessThanOrEqual:
    return LessThanOrEqual(Length(column), limit)
