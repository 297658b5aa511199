"""What of the ledger needs a person: which rows, how many, for how long, and how much money."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.cache import cache
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from payments.models import Reconciliation, ReconciliationRow, Transaction, WebhookDelivery
from payments.money import format_amount
from queues.console.snapshot import FRESH_SECONDS

LATE = timedelta(minutes=5)
CAP = 10_000
RUNS_LOOKED_AT = 200
Verdict = WebhookDelivery.Verdict

# The oldest CAP, so that the picture costs the same however much lies there.
AT_RISK = f"""
SELECT r.held, r.currency, count(*), sum(r.amount), min(r.paid_at)
  FROM (SELECT t.held_at IS NOT NULL AS held, t.currency, t.amount - t.refunded AS amount, t.paid_at
          FROM transactions t
         WHERE t.status IN ('paid', 'partially_refunded') AND t.fulfilled_at IS NULL
           AND (t.held_at IS NOT NULL OR t.paid_at < clock_timestamp() - %(late)s)
         ORDER BY t.paid_at LIMIT {CAP} + 1) r
 GROUP BY r.held, r.currency ORDER BY r.currency
"""  # noqa: S608
# By provider, with a step into the index for each: many of one must not hide those of another. The
# least id is of the one that was found first.
DIFFERENCES = f"""
WITH RECURSIVE found(provider) AS (
    SELECT min(r.provider) FROM reconciliation_rows r WHERE r.handled_at IS NULL
    UNION ALL
    SELECT (SELECT min(r.provider) FROM reconciliation_rows r WHERE r.handled_at IS NULL AND r.provider > f.provider)
      FROM found f WHERE f.provider IS NOT NULL)
SELECT f.provider,
       (SELECT count(*) FROM (SELECT FROM reconciliation_rows r
                               WHERE r.handled_at IS NULL AND r.provider = f.provider LIMIT {CAP} + 1) n),
       (SELECT r.id FROM reconciliation_rows r
         WHERE r.handled_at IS NULL AND r.provider = f.provider ORDER BY r.id LIMIT 1)
  FROM found f WHERE f.provider IS NOT NULL
"""  # noqa: S608


def unfulfilled() -> QuerySet[Transaction]:
    """Paid longer than LATE ago, and not fulfilled. One that is held waits for a person, not here."""
    rows = Transaction.objects.filter(status__in=["paid", "partially_refunded"])
    return rows.filter(fulfilled_at__isnull=True, held_at__isnull=True, paid_at__lt=Now() - LATE)


def held() -> QuerySet[Transaction]:
    """Paid unannounced; a person must release them."""
    rows = Transaction.objects.filter(status__in=["paid", "partially_refunded"])
    return rows.filter(fulfilled_at__isnull=True, held_at__isnull=False)


def open_deliveries(verdict: str = "") -> QuerySet[WebhookDelivery]:
    """Those that wait for a person: mismatches, and signed ones that could not be read."""
    rows = WebhookDelivery.objects.filter(WebhookDelivery.OPEN)
    return rows.filter(verdict=verdict) if verdict else rows


def open_mismatches() -> QuerySet[WebhookDelivery]:
    """Deliveries that contradict the ledger and that nobody has dealt with."""
    return open_deliveries(Verdict.MISMATCH)


def ids_of(rows: QuerySet[Any], order: str, field: str = "pk") -> set[UUID]:
    """The ids of the first CAP rows. They are looked up before the list that they choose: the planner
    cannot know how few they are, and would look for them in the whole of the ledger."""
    return set(rows.order_by(order).values_list(field, flat=True)[:CAP]) - {None}


def contradicted() -> set[UUID]:
    """The transactions that an open mismatch speaks of."""
    return ids_of(open_mismatches(), "received_at", "transaction_id")


def newest_runs() -> list[Reconciliation]:
    """Of each provider and kind the newest comparison that is over."""
    finished = Reconciliation.objects.filter(finished_at__isnull=False).order_by("-id")
    newest: dict[tuple[str, str], Reconciliation] = {}
    for run in finished[:RUNS_LOOKED_AT]:
        newest.setdefault((run.provider, run.source), run)
    return list(newest.values())


def open_differences() -> QuerySet[ReconciliationRow]:
    """Differences of all comparisons that nobody has dealt with and that are there still."""
    return ReconciliationRow.objects.filter(handled_at__isnull=True)


@dataclass(frozen=True)
class Differences:
    """The open differences with one provider; since when the oldest is known."""

    provider: str
    count: int
    oldest: datetime


@dataclass
class AtRisk:
    """Money that came with nothing given for it. More than CAP orders are not added up."""

    orders: int = 0
    oldest: datetime | None = None
    money: dict[str, int] = field(default_factory=dict)

    @property
    def amounts(self) -> str:
        return ", ".join(format_amount(amount, name) for name, amount in self.money.items())


@dataclass(frozen=True)
class Attention:
    """One picture of what needs a person, made once for all tabs. Counts end above CAP."""

    unfulfilled: AtRisk
    held: AtRisk
    mismatches: int
    unread: int
    differences: list[Differences]
    # The newest comparisons: those that came to no end, and those that left something out.
    broken: list[Reconciliation]
    partial: list[Reconciliation]

    @property
    def capped(self) -> bool:
        return self.unfulfilled.orders + self.held.orders > CAP


def attention() -> Attention:
    """The current picture, some seconds old."""
    made: Attention | None = cache.get("payments.attention")
    if made is None:
        began = time.monotonic()
        made = _take()
        # One that was slow to make is kept longer, so that watching never becomes the load.
        cache.set("payments.attention", made, max(FRESH_SECONDS, 20 * (time.monotonic() - began)))
    return made


def _take() -> Attention:
    late, waiting = AtRisk(), AtRisk()
    with connection.cursor() as cursor:
        parameters: dict[str, Any] = {"late": LATE}
        cursor.execute(AT_RISK, parameters)
        for is_held, currency, orders, amount, oldest in cursor.fetchall():
            pile = waiting if is_held else late
            pile.orders += orders
            pile.money[currency] = int(amount)
            pile.oldest = min(filter(None, (pile.oldest, oldest)), default=None)
        cursor.execute(DIFFERENCES)
        differences = [
            Differences(provider, found, moment_of(oldest))
            for provider, found, oldest in cursor.fetchall()
        ]
    newest = newest_runs()
    return Attention(
        late,
        waiting,
        _count(open_mismatches()),
        _count(open_deliveries(Verdict.REJECTED)),
        differences,
        broken=[run for run in newest if run.error],
        partial=[run for run in newest if not run.error and (run.unread or run.not_asked)],
    )


def _count(rows: QuerySet[Any]) -> int:
    return rows.order_by()[: CAP + 1].count()


def moment_of(id: UUID) -> datetime:
    """When a row with this id was made (see new_task_id)."""
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)
