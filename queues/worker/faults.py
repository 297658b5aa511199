"""Faults that stay until somebody mends the database: told seldom, with what mends them."""

from __future__ import annotations

import re
import time
from typing import Any

import psycopg
import structlog
from django.db import DatabaseError, InterfaceError

from queues import functions

log = structlog.get_logger("queues.worker")
SECONDS_BETWEEN_WARNINGS = 60.0
UNDEFINED_FUNCTION, NO_PRIVILEGE = "42883", "42501"
# A pooler gave the session, and what was prepared in it, to another.
STATEMENT_UNKNOWN, STATEMENT_KNOWN = "26000", "42P05"


class RecurringFault:
    """Logs why the database refused a verb. Call it from the except clause of a loop that goes on.
    `what`: what it means to the worker.

    A missing SQL function or grant, which no waiting mends, is logged once a minute with its
    remedy; anything else each time.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: dict[str, float] = {}

    def report(self, error: Exception, **fields: Any) -> None:
        """Log the error, `fields` beside it."""
        cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
        state = getattr(cause, "sqlstate", None)
        told = str(error).strip()
        if state in (STATEMENT_UNKNOWN, STATEMENT_KNOWN):
            fields["remedy"] = (
                "set DATABASE_PREPARED_STATEMENTS=false: a transaction pooler is in between"
            )
        if state not in (UNDEFINED_FUNCTION, NO_PRIVILEGE):
            log.warning(self._what, error=told, **fields)
            return
        sentence = told.splitlines()[0]
        now = time.monotonic()
        if now - self._told.get(sentence, -SECONDS_BETWEEN_WARNINGS) < SECONDS_BETWEEN_WARNINGS:
            return
        self._told[sentence] = now
        log.warning(
            "a function of the database is missing or not granted; trying on",
            error=sentence,
            remedy=_remedy(sentence),
        )


def _remedy(sentence: str) -> str:
    """What `manage.py doctor` says of the function that the sentence names."""
    named = re.search(r"function (?:\w+\.)?(\w+)", sentence)
    if named:
        try:
            found = functions.findings([named[1]])
        except (DatabaseError, InterfaceError):
            found = []
        if found:
            return found[0].remedy
    return "manage.py doctor"
