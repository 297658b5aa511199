"""What payments need done from time to time, by any worker: old deliveries deleted, providers asked."""

from __future__ import annotations

from django.conf import settings

from queues import maintenance
from queues.database import query

HOUR = 3600.0
CHUNK = 5000


def connect() -> None:
    """Plug payments into the workers' maintenance."""
    maintenance.every(HOUR, purge_deliveries)


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
