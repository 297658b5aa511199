"""What of the ledger needs a person: which rows, how many, for how long, and how much money."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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


def unfulfilled() -> QuerySet[Transaction]:
    """Paid longer than LATE ago, and not fulfilled. One that is held waits for a person, not here."""
    rows = Transaction.objects.filter(status__in=["paid", "partially_refunded"])
    return rows.filter(fulfilled_at__isnull=True, held_at__isnull=True, paid_at__lt=Now() - LATE)


def held() -> QuerySet[Transaction]:
    """Paid unannounced; a person must release them."""
    rows = Transaction.objects.filter(status__in=["paid", "partially_refunded"])
    return rows.filter(fulfilled_at__isnull=True, held_at__isnull=False)


def open_mismatches() -> QuerySet[WebhookDelivery]:
    """Deliveries that contradict the ledger and that nobody has dealt with."""
    return WebhookDelivery.objects.filter(verdict="mismatch", handled_at__isnull=True)


def ids_of(rows: QuerySet[Any], order: str, field: str = "pk") -> set[UUID]:
    """The ids of the first CAP rows. They are looked up before the list that they choose: the planner
    cannot know how few they are, and would look for them in the whole of the ledger."""
    return set(rows.order_by(order).values_list(field, flat=True)[:CAP]) - {None}


def contradicted() -> set[UUID]:
    """The transactions that an open mismatch speaks of."""
    return ids_of(open_mismatches(), "received_at", "transaction_id")


def newest_runs() -> tuple[list[Reconciliation], list[Reconciliation]]:
    """Of each provider and kind the newest comparison that came to its end, and, where a later one
    did not, that one."""
    finished = Reconciliation.objects.filter(finished_at__isnull=False).order_by("-id")
    whole: dict[tuple[str, str], Reconciliation] = {}
    broken: dict[tuple[str, str], Reconciliation] = {}
    for run in finished[:RUNS_LOOKED_AT]:
        key = (run.provider, run.source)
        if key not in whole:
            (broken if run.error else whole).setdefault(key, run)
    return list(whole.values()), list(broken.values())


def open_differences(run: Reconciliation) -> QuerySet[ReconciliationRow]:
    """Differences that this comparison found and nobody has dealt with."""
    return ReconciliationRow.objects.filter(reconciliation=run, handled_at__isnull=True)


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
    differences: list[tuple[Reconciliation, int]]
    broken: list[Reconciliation]

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
    contradicted = open_mismatches().order_by()[: CAP + 1].count()
    whole, broken = newest_runs()
    differences = [
        (run, found)
        for run in whole
        if (found := open_differences(run).order_by()[: CAP + 1].count())
    ]
    return Attention(late, waiting, contradicted, differences, broken)
