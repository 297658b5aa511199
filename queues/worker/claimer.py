"""Claiming: keep the executors fed, and sleep until there is work when there is none."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, connections

from queues import claims
from queues.claims import WorkerGone
from queues.worker.faults import RecurringFault
from queues.worker.holdings import Holdings
from queues.worker.listener import Listener

log = structlog.get_logger("queues.worker")
TIMEOUTS_KEPT_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.02
BUSY_SECONDS = 0.05
SHORTEST_SECONDS = 0.002


class Claimer:
    """Claims for `worker_id()` until stopped; with drain, until nothing is due and nothing held."""

    def __init__(
        self,
        holdings: Holdings,
        worker_id: Callable[[], str],
        on_gone: Callable[[str], None],
        queues: Sequence[str] | None,
        *,
        drain: bool,
    ) -> None:
        self.holdings = holdings
        self.queues = queues
        self.drain = drain
        self.wake = holdings.low
        self.stopping = threading.Event()
        self.draining = False
        self._worker_id = worker_id
        self._on_gone = on_gone
        self._listener = Listener(queues)
        self._fault = RecurringFault("cannot claim, trying again")
        self._timeouts = claims.DefaultTimeouts(keep=TIMEOUTS_KEPT_SECONDS)
        # The worker id under which we have asked to be notified.
        self._idle_as: str | None = None
        self._busy_since: float | None = None

    def stop(self) -> None:
        self.stopping.set()
        self.wake.set()

    def run(self) -> None:
        pause = 0.1
        try:
            while not self.stopping.is_set():
                try:
                    self._step()
                    pause = 0.1
                except (DatabaseError, InterfaceError) as error:
                    self._fault.report(error, pause=pause)
                    connection.close()
                    self._idle_as = None
                    self.stopping.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311
                    pause = min(pause * 2, 10.0)
        finally:
            self._listener.close()
            connections.close_all()

    def _step(self) -> None:
        self.wake.clear()
        room = 0 if self.draining else self.holdings.room()
        worker = self._worker_id()
        if room <= 0:
            self._wait_for_room(worker)
            return
        self._busy_since = None
        # Asked before the claim: what is settled after it may have released another task.
        nothing_held = not self.holdings.all()
        try:
            tasks = claims.claim_tasks(worker, self.queues, room, self._timeouts)
        except WorkerGone:
            self._on_gone(worker)
            return
        if tasks:
            self.holdings.add(tasks)
            if len(tasks) > 1:
                # Such a claim ends the asking for notifications.
                self._idle_as = None
            elif self._idle_as == worker:
                # There was no more. Its handler starts meanwhile, which the search for more would delay.
                self._sleep(most=LOOK_AGAIN_SECONDS)
            return
        waiting, next_token = claims.limits_wait(self.queues)
        poll = settings.QUEUE_POLL_SECONDS
        if self.drain:
            self._drained(nothing_held, waiting, poll if next_token is None else next_token)
        elif self._idle_as != worker:
            # Asked for notifications only now: look once more before sleeping.
            self._listener.files()
            claims.worker_idle(worker)
            self._idle_as = worker
        else:
            self._sleep(most=poll if next_token is None else max(SHORTEST_SECONDS, next_token))

    def _drained(self, nothing_held: bool, waiting: bool, seconds: float) -> None:
        """Stop when nothing is due and nothing held; where a limit is all that tasks wait for, wait."""
        if waiting:
            self.wake.wait(min(settings.QUEUE_POLL_SECONDS, max(SHORTEST_SECONDS, seconds)))
        elif nothing_held:
            self.stopping.set()
        else:
            self.holdings.wait_empty(settings.QUEUE_POLL_SECONDS)

    def _wait_for_room(self, worker: str) -> None:
        """Sleep. Who is busy for longer than a moment asks for no notifications meanwhile."""
        if self._idle_as != worker:
            self._sleep()
            return
        now = time.monotonic()
        self._busy_since = self._busy_since or now
        if now < self._busy_since + BUSY_SECONDS:
            self._sleep(most=BUSY_SECONDS)
        else:
            claims.worker_busy(worker)
            self._idle_as = None

    def _sleep(self, most: float = math.inf) -> None:
        """Until a notification for us, room in the buffer, or the poll that makes up for a lost one."""
        seconds = min(most, settings.QUEUE_POLL_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311
        until = time.monotonic() + seconds
        while self.wake.wait(max(0.0, until - time.monotonic()), *self._listener.files()):
            if self._listener.heard() or self.wake.is_set():
                return
