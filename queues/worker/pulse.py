"""What goes on beside the work: heartbeat, progress, giving back what waits too long, rescue."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, connections

from queues import claims, registry
from queues.claims import Failure
from queues.worker import judge
from queues.worker.claimer import Claimer
from queues.worker.holdings import Holding, Holdings

log = structlog.get_logger("queues.worker")
TICK_SECONDS = 0.5
LONGEST_BUFFERED_SECONDS = 2.0
OVERRUN_GRACE_SECONDS = 5.0


class Pulse:
    """Keeps the database and the console informed of one worker process."""

    def __init__(
        self,
        holdings: Holdings,
        claimer: Claimer,
        worker_id: Callable[[], str],
        on_gone: Callable[[str], None],
        on_overrun: Callable[[Holding, Failure], None],
    ) -> None:
        self.holdings = holdings
        self.claimer = claimer
        self.ended = threading.Event()
        self._worker_id = worker_id
        self._on_gone = on_gone
        self._on_overrun = on_overrun
        # Since when every heartbeat went through (monotonic seconds); None while they fail.
        self.steady_since: float | None = -math.inf
        self._shown: dict[tuple[str, int], tuple[int, str | None]] = {}
        self._next_beat = 0.0

    def run(self) -> None:
        try:
            while not self.ended.wait(TICK_SECONDS):
                try:
                    self._tick()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("heartbeat failed, trying again", error=str(error).strip())
                    self.steady_since = None
                    connection.close()
        finally:
            connections.close_all()

    def _tick(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._beat()
            self._next_beat = time.monotonic() + settings.QUEUE_HEARTBEAT_SECONDS
            if self.steady_since is None:
                self.steady_since = time.monotonic()
        self._give_back_what_waits()
        self._end_overruns()
        self._show_progress()

    def _give_back_what_waits(self) -> None:
        waited = self.holdings.take_buffered(LONGEST_BUFFERED_SECONDS)
        if not waited:
            return
        try:
            claims.release_tasks([holding.key for holding in waited])
        except (DatabaseError, InterfaceError):
            self.holdings.put_back(waited)
            raise
        self.holdings.settled(waited)

    def _end_overruns(self) -> None:
        """A handler that goes on long after its timeout cannot be stopped: its task fails now, and
        this process ends, to be started anew without it."""
        for holding in self.holdings.all():
            context = holding.context
            if context and not holding.returned and context.overran(OVERRUN_GRACE_SECONDS):
                handler = registry.find(holding.task.type)
                if not holding.abandoned and not holding.task.suspect:
                    holding.abandoned = True
                    self._on_overrun(holding, judge.overrun(holding.task, handler))

    def _show_progress(self) -> None:
        held = self.holdings.all()
        for holding in held:
            latest = holding.context and holding.context.latest_progress
            if latest and not holding.returned and latest != self._shown.get(holding.key):
                claims.report_progress(*holding.key, *latest)
                self._shown[holding.key] = latest
        self._shown = {h.key: self._shown[h.key] for h in held if h.key in self._shown}

    def _beat(self) -> None:
        worker = self._worker_id()
        held = self.holdings.all()
        now = time.monotonic()
        pulse = claims.heartbeat(
            worker,
            [
                (h.task.key, h.task.lease, None if h.started is None else now - h.started)
                for h in held
            ],
        )
        for holding in held:
            # One that has returned may have been recorded since: its report will tell.
            if holding.key in pulse.lost and not holding.returned:
                holding.lose()
        if pulse.status == "gone" and not self.claimer.stopping.is_set():
            self._on_gone(worker)
        self.claimer.draining = pulse.status == "draining"
