"""Running the SQL verbs over Django's connection, through conflicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from django.db import DatabaseError, connection
from psycopg.errors import DeadlockDetected, SerializationFailure

CONFLICT_TRIES = 3
T = TypeVar("T")


def query(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run one verb and fetch its rows, through conflicts.

    Django's own cursor would write the parameters into the statement: arrays of hundreds of ids are
    quoted here and parsed there for 3 microseconds a task. This one sends them beside it.
    """

    def run() -> list[tuple[Any, ...]]:
        connection.close_if_health_check_failed()
        connection.ensure_connection()
        connection.validate_no_broken_transaction()
        with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()

    return through_conflicts(run)


def through_conflicts(work: Callable[[], T]) -> T:
    """Do a whole transaction's work, up to three times while the database reports a conflict.

    Inside a transaction that the caller holds open there is one try: all of it is lost then, and
    its owner must decide.
    """
    for _ in range(CONFLICT_TRIES - 1):
        try:
            return work()
        except DatabaseError as error:
            conflict = isinstance(error.__cause__, DeadlockDetected | SerializationFailure)
            if not conflict or connection.in_atomic_block:
                raise
    return work()
