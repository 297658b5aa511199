"""Reconciliation as a task: what it does, and when the next one is due."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models import Max

from payments.models import Reconciliation
from payments.providers.base import NotConfigured, UnknownProvider, load
from payments.reconcile import FINDINGS, LEFT_OUT, now, reconcile
from queues.enqueue import enqueue
from queues.retry import Fail

if TYPE_CHECKING:
    from queues.worker.context import TaskContext

RECONCILE = "payments.reconcile"
MOST_DAYS = 3660


def run(ctx: TaskContext) -> dict[str, Any]:
    """Compare the ledger with a provider's books of the last days: payload `provider`, and `days`
    where PAYMENTS_RECONCILE_DAYS is not meant. A provider that fails is asked again."""
    payload = ctx.payload if isinstance(ctx.payload, dict) else {}
    days = payload.get("days", settings.PAYMENTS_RECONCILE_DAYS)
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MOST_DAYS:
        raise Fail(f"The payload's days is a number from 1 to {MOST_DAYS}, not {days!r}.")
    until = now()
    try:
        found = reconcile(
            str(payload.get("provider")),
            until - timedelta(days=days),
            until,
            actor=f"task {ctx.id}",
            step=ctx.check,
        )
    except (UnknownProvider, NotConfigured) as error:
        raise Fail(str(error)) from error
    return {
        "reconciliation_id": str(found.id),
        **{name: getattr(found, name) for name in (*FINDINGS, *LEFT_OUT)},
    }


def schedule() -> None:
    """Keep one such task waiting or running for each provider with a key: it is due
    PAYMENTS_RECONCILE_HOURS after the last one began. 0 hours: none."""
    hours = settings.PAYMENTS_RECONCILE_HOURS
    if hours <= 0:
        return
    begun = dict(
        Reconciliation.objects.filter(source=Reconciliation.Source.PROVIDER)
        .values_list("provider")
        .annotate(Max("started_at"))
        .order_by()
    )
    for name in settings.PAYMENT_PROVIDERS:
        if load(name).has_key():
            enqueue(
                RECONCILE,
                {"provider": name, "days": settings.PAYMENTS_RECONCILE_DAYS},
                dedupe_key=name,
                run_at=begun[name] + timedelta(hours=hours) if name in begun else None,
            )
