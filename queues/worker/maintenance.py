"""What keeps the queue in order. Every worker does it; none needs to be the leader."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, connections

from queues import claims, maintenance
from queues.models import DatabaseClock
from queues.models import Worker as WorkerRow
from queues.worker.pulse import Pulse

log = structlog.get_logger("queues.worker")


class Maintenance:
    """Rescues lost tasks, promotes due ones and archives finished ones."""

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
        maintenance.archive()
        maintenance.do_chores()
        WorkerRow.objects.filter(pk=self._worker_id()).update(swept_at=DatabaseClock())
