"""GET /healthz: for load balancers and for people with curl."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from queues.version import VERSION

_applied = False


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while the database answers and its migrations are applied, else 503.

    "status" is ok, degraded (no worker has been heard of for a minute) or down.
    """
    report: dict[str, Any] = {"status": "down", "version": VERSION}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        report["database"] = "ok"
        report["migrations"] = "applied" if _migrated() else "missing: run manage.py migrate"
        if report["migrations"] == "applied":
            report["workers"] = _workers()
            report["status"] = "ok" if report["workers"]["alive"] else "degraded"
    except DatabaseError as error:
        report["database"] = f"unreachable: {type(error).__name__}"
    return JsonResponse(report, status=503 if report["status"] == "down" else 200)


def _migrated() -> bool:
    """Whether nothing is left to apply; asked until it is so, then remembered."""
    global _applied
    if not _applied:
        executor = MigrationExecutor(connection)
        _applied = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _applied


def _workers() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FILTER (WHERE status <> 'gone' AND heartbeat_at > clock_timestamp() - interval '1 minute'),
                      extract(epoch FROM clock_timestamp() - max(heartbeat_at))::float8 FROM workers"""
        )
        alive, silence = cursor.fetchone()
    return {
        "alive": alive,
        "last_heartbeat_seconds_ago": None if silence is None else round(silence, 1),
    }
