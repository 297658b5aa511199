"""What keeps OpsConsole from working with its database, each in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg

OLDEST_MAJOR = 14
CONNECT_SECONDS = 5
_OPTIONS_OF_DJANGO = {"pool", "isolation_level", "server_side_binding", "assume_role"}


def unreachable(database: Mapping[str, Any], error: Exception) -> str:
    """The sentence for a connection that could not be made. `database`: as in DATABASES."""
    if database.get("NAME") == "not-running":
        return (
            "The database of the data folder is not running: start it with `make demo`, "
            "or set DATABASE_URL to a PostgreSQL of yours."
        )
    if (
        isinstance(error, psycopg.Error)
        and "does not exist" in str(error)
        and "database" in str(error)
    ):
        return (
            f"PostgreSQL answers at {place(database)}, but has no such database: create it "
            f"(createdb {database.get('NAME')}), or correct DATABASE_URL."
        )
    return (
        f"PostgreSQL is not reachable at {place(database)} ({_reason(error)}): start it, "
        "correct DATABASE_URL, or unset it and use `make demo`."
    )


def place(database: Mapping[str, Any]) -> str:
    """host:port/name of a DATABASES entry; never its password."""
    host, port = database.get("HOST") or "the local socket", database.get("PORT") or 5432
    return f"{host}:{port}/{database.get('NAME') or ''}"


def connection_problem(database: Mapping[str, Any]) -> str | None:
    """Why the database of a DATABASES entry cannot be used; None if it can. Changes nothing."""
    version, problem = server_version(database)
    if problem or version // 10000 >= OLDEST_MAJOR:
        return problem
    return (
        f"PostgreSQL {version // 10000} at {place(database)} is too old: "
        f"OpsConsole needs {OLDEST_MAJOR} or newer."
    )


def server_version(database: Mapping[str, Any]) -> tuple[int, str | None]:
    """The server's version as 180006, or 0 and the reason why it does not answer."""
    options = database.get("OPTIONS") or {}
    parameters = {
        "host": database.get("HOST"),
        "port": database.get("PORT"),
        "user": database.get("USER"),
        "password": database.get("PASSWORD"),
        "dbname": database.get("NAME"),
        "connect_timeout": CONNECT_SECONDS,
        **{key: value for key, value in options.items() if key not in _OPTIONS_OF_DJANGO},
    }
    try:
        given = {key: str(value) for key, value in parameters.items() if value not in (None, "")}
        with psycopg.connect("", autocommit=True, **given) as connection:  # type: ignore[arg-type]
            return connection.info.server_version, None
    except (psycopg.Error, ValueError) as error:
        return 0, unreachable(database, error)


def _reason(error: Exception) -> str:
    """The last of the reasons that libpq gives, without its hints."""
    text = str(error).strip()
    reasons = re.findall(r".*failed: (?:FATAL: *)?(.+)", text)
    return str(reasons[-1] if reasons else text.splitlines()[0] if text else "no reason given")


def missing_migrations() -> list[str]:
    """The migrations of this version that the default database lacks, as app.name."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


VERIFICATIONS = {
    "the table tasks": "SELECT * FROM public.tasks LIMIT 1",
    "the table transactions": "SELECT * FROM public.transactions LIMIT 1",
    "claim_next_task()": "SELECT * FROM claim_next_task()",
}


def verify() -> list[str]:
    """What does not answer of what existing callers begin with, each in one sentence.

    Changes nothing: each query runs in a transaction that is rolled back, so that none claims.
    """
    from django.db import DatabaseError, connection, transaction

    problems = []
    for name, query in VERIFICATIONS.items():
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = '10s'")
                cursor.execute(query)
                transaction.set_rollback(True)
        except DatabaseError as error:
            problems.append(f"{name} does not answer: {str(error).strip()}")
    return problems
