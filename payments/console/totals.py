"""Money by currency and day, from an index that holds all that is added up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from psycopg.sql import SQL, Identifier

from payments.money import format_amount

DAYS = 7
MOST_DAYS = 31
MOST_VALUES = 100
FRESH_SECONDS = 10

# A step into the index for each value, whatever the number of rows.
VALUES = SQL("""
WITH RECURSIVE found(value) AS (
    SELECT min(t.{column}) FROM transactions t
    UNION ALL
    SELECT (SELECT min(t.{column}) FROM transactions t WHERE t.{column} > f.value) FROM found f WHERE f.value IS NOT NULL)
SELECT f.value FROM found f WHERE f.value IS NOT NULL LIMIT %s
""")
BY_DAY = """
SELECT c.currency, d.day, d.payments, d.came, d.back
  FROM unnest(%s::text[]) c(currency), LATERAL (
       SELECT (t.paid_at AT TIME ZONE %s)::date AS day, count(*) AS payments, sum(t.amount) AS came, sum(t.refunded) AS back
         FROM transactions t WHERE t.currency = c.currency AND t.paid_at >= %s AND t.paid_at < %s
        GROUP BY 1) d
 ORDER BY d.day DESC, c.currency
"""


@dataclass(frozen=True)
class Total:
    """What was paid within some time, and how much of that has gone back until now. Minor units."""

    currency: str
    payments: int
    came: int
    back: int
    day: date | None = None

    @property
    def came_in(self) -> str:
        return format_amount(self.came, self.currency)

    @property
    def went_back(self) -> str:
        return format_amount(self.back, self.currency)

    @property
    def kept(self) -> str:
        return format_amount(self.came - self.back, self.currency)


@dataclass(frozen=True)
class Totals:
    """The days from `since` to `until`, both within."""

    since: date
    until: date
    days: list[Total]

    @property
    def currencies(self) -> list[Total]:
        """All days together."""
        names = sorted({day.currency for day in self.days})
        return [_sum([day for day in self.days if day.currency == name]) for name in names]

    @property
    def length(self) -> int:
        return (self.until - self.since).days + 1


def _sum(days: list[Total]) -> Total:
    return Total(
        days[0].currency,
        sum(day.payments for day in days),
        sum(day.came for day in days),
        sum(day.back for day in days),
    )


def totals(since: date | None, until: date | None, currency: str = "") -> Totals:
    """Of the last DAYS days, or the chosen ones; of a longer time its last MOST_DAYS."""
    until = until or (timezone.localdate() if since is None else since + timedelta(MOST_DAYS - 1))
    until = min(until, timezone.localdate())
    begins = until - timedelta(DAYS - 1) if since is None else min(since, until)
    begins = max(begins, until - timedelta(MOST_DAYS - 1))
    key = f"payments.totals.{begins}.{until}.{currency}"
    made: Totals | None = cache.get(key)
    if made is None:
        began = time.monotonic()
        made = _take(begins, until, [currency] if currency else known("currency"))
        # One that was slow to make is kept longer, so that watching never becomes the load.
        cache.set(key, made, max(FRESH_SECONDS, 20 * (time.monotonic() - began)))
    return made


def _take(since: date, until: date, currencies: list[str]) -> Totals:
    span = [midnight(since), midnight(until + timedelta(1))]
    with connection.cursor() as cursor:
        cursor.execute(BY_DAY, [currencies, settings.TIME_ZONE, *span])
        days = [
            Total(name, payments, int(came), int(back), day)
            for name, day, payments, came, back in cursor.fetchall()
        ]
    return Totals(since, until, days)


def midnight(day: date) -> datetime:
    """The moment at which a day begins in the server's zone."""
    return datetime.combine(day, datetime.min.time(), timezone.get_default_timezone())


def known(column: str) -> list[str]:
    """The values of an indexed column of the ledger, at most MOST_VALUES."""
    with connection.cursor() as cursor:
        cursor.execute(VALUES.format(column=Identifier(column)).as_string(), [MOST_VALUES])
        return [value for (value,) in cursor.fetchall()]
