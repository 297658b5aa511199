"""What payments need done from time to time, by any worker: old deliveries deleted, providers asked."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from payments.models import Reconciliation, ReconciliationRow
from queues import maintenance
from queues.database import query

MINUTE = 60.0
HOUR = 3600.0
CHUNK = 5000
RUNS_AT_ONCE = 200


def connect() -> None:
    """Plug payments into the workers' maintenance."""
    maintenance.every(HOUR, purge_deliveries)
    maintenance.every(HOUR, purge_reconciliations)
    maintenance.every(MINUTE, schedule_reconciliations)


def schedule_reconciliations() -> None:
    """Have each provider with a key asked every PAYMENTS_RECONCILE_HOURS."""
    # Here: it needs the tasks' handlers, which are found after the apps are ready.
    from payments.reconcile_task import schedule

    schedule()


def purge_deliveries() -> None:
    """Delete what was kept long enough (PAYMENTS_KEEP_…_DAYS), in chunks of their own commit."""
    days = [
        settings.PAYMENTS_KEEP_REJECTED_DAYS,
        settings.PAYMENTS_KEEP_REPEATS_DAYS,
        settings.PAYMENTS_KEEP_DAYS,
    ]
    deleted = CHUNK
    while deleted >= CHUNK:
        [(deleted,)] = query(
            "SELECT purge_deliveries(make_interval(days => %s), make_interval(days => %s),"
            " make_interval(days => %s), %s)",
            [*days, CHUNK],
        )


def purge_reconciliations() -> None:
    """Delete comparisons, with their rows, after PAYMENTS_KEEP_REPEATS_DAYS, save those with a
    difference that is still open."""
    age = timedelta(days=settings.PAYMENTS_KEEP_REPEATS_DAYS)
    waiting = ReconciliationRow.objects.filter(
        reconciliation=OuterRef("pk"), handled_at__isnull=True
    )
    old = Reconciliation.objects.filter(~Exists(waiting), started_at__lt=Now() - age).order_by("id")
    while ids := list(old.values_list("id", flat=True)[:RUNS_AT_ONCE]):
        Reconciliation.objects.filter(id__in=ids).delete()
