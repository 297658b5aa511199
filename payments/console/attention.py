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

# One payment may be told of more than once: it is at risk once.
OPEN = f"""
SELECT p.currency, sum(p.deliveries), sum(p.amount), min(p.oldest)
  FROM (SELECT d.currency, count(*) AS deliveries, max(d.amount) AS amount, min(d.received_at) AS oldest
          FROM (SELECT w.id, w.provider, w.payment_id, w.order_id, w.received_at,
                       CASE WHEN jsonb_typeof(w.claim -> 'currency') = 'string'
                            THEN w.claim ->> 'currency' END AS currency,
                       CASE WHEN jsonb_typeof(w.claim -> 'amount') = 'number'
                            THEN trunc((w.claim ->> 'amount')::numeric) END AS amount
                  FROM webhook_deliveries w
                 WHERE w.verdict = %s AND w.verdict IN ('mismatch', 'rejected') AND w.signed AND w.handled_at IS NULL
                 ORDER BY w.received_at LIMIT {CAP} + 1) d
         GROUP BY d.currency, d.provider, coalesce(d.payment_id, d.order_id, d.id::text)) p
 GROUP BY p.currency ORDER BY p.currency
"""  # noqa: S608


def unfulfilled() -> QuerySet[Transaction]:
    """Paid longer than LATE ago, and not fulfilled. One that is held waits for a person, not here."""
    rows = Transaction.objects.filter(status__in=["paid", "partially_refunded"])
    return rows.filter(fulfilled_at__isnull=True, held_at__isnull=True, paid_at__lt=Now() - LATE)


def held() -> QuerySet[Transaction]:
    """Paid unannounced; a person must fulfil or refund them."""
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
    """Orders or deliveries that wait, since when, and their money. More than CAP are not added up."""

    count: int = 0
    oldest: datetime | None = None
    money: dict[str, int] = field(default_factory=dict)

    def add(self, count: int, currency: str | None, amount: Any, oldest: datetime | None) -> None:
        self.count += count
        self.oldest = min(filter(None, (self.oldest, oldest)), default=None)
        if currency and amount is not None:
            self.money[currency] = int(amount)

    @property
    def amounts(self) -> str:
        return ", ".join(format_amount(amount, name) for name, amount in self.money.items())


@dataclass(frozen=True)
class Attention:
    """One picture of what needs a person, made once for all tabs. Counts end above CAP."""

    unfulfilled: AtRisk
    held: AtRisk
    mismatches: AtRisk
    unread: AtRisk
    differences: list[Differences]
    # The newest comparisons: those that came to no end, and those that left something out.
    broken: list[Reconciliation]
    partial: list[Reconciliation]

    @property
    def capped(self) -> bool:
        return self.unfulfilled.count + self.held.count > CAP


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
            pile.add(orders, currency, amount, oldest)
    newest = newest_runs()
    return Attention(
        late,
        waiting,
        _waiting(Verdict.MISMATCH),
        _waiting(Verdict.REJECTED),
        differences_by_provider(),
        broken=[run for run in newest if run.error],
        partial=[run for run in newest if not run.error and (run.unread or run.not_asked)],
    )


def _waiting(verdict: Verdict) -> AtRisk:
    pile = AtRisk()
    with connection.cursor() as cursor:
        cursor.execute(OPEN, [verdict.value])
        for currency, deliveries, amount, oldest in cursor.fetchall():
            pile.add(int(deliveries), currency, amount, oldest)
    return pile


def differences_by_provider() -> list[Differences]:
    """The open differences as they are now."""
    with connection.cursor() as cursor:
        cursor.execute(DIFFERENCES)
        return [
            Differences(provider, found, moment_of(oldest))
            for provider, found, oldest in cursor.fetchall()
        ]


def count_of_open_deliveries() -> int:
    """How many deliveries wait for a person now; counting ends above CAP."""
    return open_deliveries().order_by()[: CAP + 1].count()


def moment_of(id: UUID) -> datetime:
    """When a row with this id was made (see new_task_id)."""
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)
