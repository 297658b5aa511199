"""Hearing NOTIFY on a connection of its own, where notifications arrive at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import uuid4

import psycopg
import structlog
from django.db import connection

log = structlog.get_logger("queues.worker")
CHANNEL = "queue_tasks"
RECONNECT_SECONDS = 2.0
ECHO_SECONDS = 2.0


class Listener:
    """Used by one thread. Without notifications tasks only start a little later: polling goes on."""

    def __init__(self, queues: Sequence[str] | None) -> None:
        self._queues = queues
        self._own: psycopg.Connection | None = None
        self._next_try = 0.0
        self._echo = ""
        self._echo_due: float | None = None

    def files(self) -> list[int]:
        """What to wait on: the connection's socket, made anew when it broke; none while it fails."""
        if self._own is None and time.monotonic() >= self._next_try:
            self._connect()
        if self._echo_due is not None and time.monotonic() > self._echo_due:
            self._echo_due = None
            log.warning(
                "notifications do not arrive (is a transaction pooler in between?); polling",
                remedy="let workers connect to PostgreSQL directly",
            )
        return [] if self._own is None else [self._own.fileno()]

    def heard(self) -> bool:
        """Read what has arrived: whether it concerns our queues."""
        if self._own is None:
            return False
        payloads: list[str] = []
        try:
            self._own.pgconn.consume_input()
            while notify := self._own.pgconn.notifies():
                payloads.append(notify.extra.decode())
        except psycopg.Error as error:
            self._broken(error)
            return True
        if self._echo in payloads:
            self._echo_due = None
        return any(self._queues is None or payload in self._queues for payload in payloads)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    def _connect(self) -> None:
        try:
            self._own = psycopg.connect(**connection.get_connection_params(), autocommit=True)
            self._own.execute(f"LISTEN {CHANNEL}")
            # The echo shows whether what others send gets here: a pooler swallows it silently.
            self._echo = f"echo-{uuid4()}"
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, self._echo])
            self._echo_due = time.monotonic() + ECHO_SECONDS
        except psycopg.Error as error:
            self._broken(error)

    def _broken(self, error: psycopg.Error) -> None:
        log.warning("cannot listen, trying again", error=str(error).strip())
        self.close()
        self._next_try = time.monotonic() + RECONNECT_SECONDS
