"""What must exist besides tables: the queues, and the database roles of foreign workers with their
grants. Idempotent, run after every migrate (and after a flush, which empties the tables)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from django.apps import AppConfig
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections, transaction

from queues import backend, functions, registry
from queues.exports import QUEUE_CAPS
from queues.models import Endpoint, Queue

log = structlog.get_logger(__name__)

DATABASE_ROLES = ("opsconsole_worker", "service_role", "authenticated", "anon")
# Queues that the functions of existing callers name. They keep http_request tasks out of `default`,
# where a foreign worker takes every task it finds.
QUEUES_OF_CALLERS: dict[str, dict[str, Any]] = {
    "exports": {},
    "gpu": {"default_timeout": timedelta(hours=2)},
    "http": {},
    "jobs": {},
    "sync": {},
}
# Callers of these look for their finished tasks in the table of tasks.
READ_BY_CALLERS = ("default", "exports", "gpu", "jobs", "sync")
CALLERS_READ_FOR = timedelta(days=30)
# A partition for each day whose tasks may still move, and no memory of where the archiving stood.
READY_ARCHIVE = """
DELETE FROM archive_marks;
SELECT make_archive_partitions((SELECT min(t.completed_at)::date - 1 FROM tasks t
                                 WHERE t.status IN ('completed', 'failed', 'cancelled')));
"""


def after_migrate(app_config: AppConfig, using: str, **kwargs: Any) -> None:
    """The post_migrate step of the queue."""
    if app_config.label != "queue" or using != DEFAULT_DB_ALIAS:
        return
    connection = connections[using]
    if Queue._meta.db_table not in connection.introspection.table_names():
        return
    ensure_queues()
    ensure_endpoints()
    ensure_database_roles()
    with connection.cursor() as cursor:
        for text in functions.grants():
            cursor.execute(text)
        cursor.execute(READY_ARCHIVE)
        cursor.execute("NOTIFY pgrst, 'reload schema'")


def named_queues() -> set[str]:
    """The queues that handlers, callers and the settings name: without one, what goes to it is refused."""
    return {
        "default",
        *settings.QUEUE_NAMES,
        *registry.queue_names(),
        *backend.queue_names(),
        *QUEUES_OF_CALLERS,
    }


def ensure_queues() -> None:
    """Create the queues that handlers, callers and QUEUE_NAMES name; existing ones stay as they are."""
    rules = {name: QUEUES_OF_CALLERS.get(name, {}) for name in named_queues()}
    for name in READ_BY_CALLERS:
        rules[name] = {"archive_after": CALLERS_READ_FOR, **rules[name]}
    Queue.objects.bulk_create(
        [
            Queue(name=name, max_concurrent=QUEUE_CAPS.get(name), **rule)
            for name, rule in sorted(rules.items())
        ],
        ignore_conflicts=True,
    )


def ensure_endpoints() -> None:
    """Write down where the database's own requests go, if the settings say so; else it stays."""
    if settings.BUBBLE_SYNC_URL or settings.BUBBLE_SYNC_SECRET:
        Endpoint.objects.update_or_create(
            name="bubble_sync",
            defaults={"url": settings.BUBBLE_SYNC_URL, "secret": settings.BUBBLE_SYNC_SECRET},
        )


def ensure_database_roles() -> None:
    """Create the roles that foreign workers connect through, or say what to run when we may not."""
    for role in DATABASE_ROLES:
        try:
            with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE ROLE {role} NOLOGIN")
        except ProgrammingError as error:
            log.warning(
                "database role missing",
                role=role,
                reason=str(error).strip(),
                remedy=f"as a superuser run: CREATE ROLE {role} NOLOGIN; then migrate again",
            )
