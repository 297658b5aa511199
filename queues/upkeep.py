"""What must exist besides tables: the queues, and the database roles of foreign workers with their
grants. Idempotent, run after every migrate (and after a flush, which empties the tables)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
from django.apps import AppConfig
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections, transaction

from queues import registry
from queues.exports import QUEUE_CAPS
from queues.models import Queue

log = structlog.get_logger(__name__)

DATABASE_ROLES = ("opsconsole_worker", "service_role")
GRANTS = Path(__file__).parent / "grants.sql"


def after_migrate(app_config: AppConfig, using: str, **kwargs: Any) -> None:
    """The post_migrate step of the queue."""
    if app_config.label != "queue" or using != DEFAULT_DB_ALIAS:
        return
    connection = connections[using]
    if Queue._meta.db_table not in connection.introspection.table_names():
        return
    ensure_queues()
    ensure_database_roles()
    with connection.cursor() as cursor:
        cursor.execute(GRANTS.read_text())
        cursor.execute("NOTIFY pgrst, 'reload schema'")


def ensure_queues() -> None:
    """Create the queues that handlers and QUEUE_NAMES name; existing ones stay as they are."""
    names = {"default", *settings.QUEUE_NAMES, *registry.queue_names()}
    Queue.objects.bulk_create(
        [Queue(name=name, max_concurrent=QUEUE_CAPS.get(name)) for name in sorted(names)],
        ignore_conflicts=True,
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
