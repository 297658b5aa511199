"""What goes on beside the work: heartbeat, progress, giving back what waits too long, rescue."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, connections

from queues import claims
from queues.models import DatabaseClock
from queues.models import Worker as WorkerRow
from queues.worker.claimer import Claimer
from queues.worker.holdings import Holdings

log = structlog.get_logger("queues.worker")
TICK_SECONDS = 0.5
LONGEST_BUFFERED_SECONDS = 2.0


class Pulse:
    """Keeps the database and the console informed of one worker process."""

    def __init__(
        self,
        holdings: Holdings,
        claimer: Claimer,
        worker_id: Callable[[], str],
        on_gone: Callable[[str], None],
    ) -> None:
        self.holdings = holdings
        self.claimer = claimer
        self.ended = threading.Event()
        self._worker_id = worker_id
        self._on_gone = on_gone
        # Since when every heartbeat went through (monotonic seconds); None while they fail.
        self.steady_since: float | None = -math.inf
        self._shown: dict[tuple[UUID, int], tuple[int, str | None]] = {}
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
        self.holdings.dropped(waited)

    def _show_progress(self) -> None:
        held = self.holdings.all()
        for holding in held:
            latest = holding.context.latest_progress
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
                (h.task.id, h.task.lease, None if h.started is None else now - h.started)
                for h in held
            ],
        )
        for holding in held:
            # One that has returned may have been recorded since: its report will tell.
            if holding.key in pulse.lost and not holding.returned:
                holding.context.lost = True
        if pulse.status == "gone" and not self.claimer.stopping.is_set():
            self._on_gone(worker)
        self.claimer.draining = pulse.status == "draining"


class Maintenance:
    """Rescues lost tasks and promotes due ones. Every worker does it; none needs to be the leader."""

    def __init__(self, pulse: Pulse, worker_id: Callable[[], str]) -> None:
        self.ended = threading.Event()
        self._pulse = pulse
        self._worker_id = worker_id

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                try:
                    self.sweep()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("maintenance failed, trying again", error=str(error).strip())
                    connection.close()
                # The jitter keeps many workers from sweeping in step.
                self.ended.wait(settings.QUEUE_MAINTENANCE_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311
        finally:
            connections.close_all()

    def sweep(self) -> None:
        claims.promote_due()
        silence = settings.QUEUE_SILENCE
        steady_since = self._pulse.steady_since
        if steady_since is None or time.monotonic() - steady_since < silence.total_seconds():
            # After an outage all others were silent as we were: let them beat before judging.
            return
        while rescued := claims.rescue_lost(silence):
            for id, status, reason in rescued:
                log.warning("lost task rescued", task=str(id), now=status, reason=reason)
        WorkerRow.objects.filter(pk=self._worker_id()).update(swept_at=DatabaseClock())
