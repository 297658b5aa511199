"""The worker process: starts its threads, waits for a signal, and ends without losing anything."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog
from django.db import DatabaseError, InterfaceError, connection, connections

from queues import claims, registry
from queues.claims import Failure
from queues.version import VERSION
from queues.worker.board import Board
from queues.worker.claimer import Claimer
from queues.worker.executor import Executors
from queues.worker.finisher import Finisher
from queues.worker.holdings import Holding, Holdings
from queues.worker.maintenance import Maintenance
from queues.worker.pulse import Pulse
from queues.worker.supervisor import RECYCLE, Orders

log = structlog.get_logger("queues.worker")
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to run. queues None: all, by name. grace: seconds that running handlers get at the end."""

    queues: Sequence[str] | None = None
    concurrency: int = 4
    drain: bool = False
    name: str = ""
    grace: float = 20.0


class Worker:
    """One worker process, from its registration to its last word."""

    def __init__(self, options: Options, orders: Orders, board: Board) -> None:
        self.options = options
        self.orders = orders
        self.board = board
        self.id = ""
        self.holdings = Holdings(options.concurrency)
        self.claimer = Claimer(
            self.holdings, self.current_id, self.renew, options.queues, drain=options.drain
        )
        self.finisher = Finisher(self.holdings, self.claimer.wake.set)
        self.executors = Executors(self.holdings, board, self.finisher.report)
        self.pulse = Pulse(
            self.holdings, self.claimer, self.current_id, self.renew, self._on_overrun
        )
        self.maintenance = Maintenance(self.pulse, self.current_id)
        self._renewing = threading.Lock()
        self._signals = 0
        self._code = 0

    def current_id(self) -> str:
        return self.id

    def run(self) -> int:
        """Work until told to stop or, with drain, until nothing is left. Returns the exit code;
        RECYCLE asks the supervisor for a fresh process."""
        self.id = self._register()
        log.info(
            "worker started polling",
            worker=self.id,
            queues=",".join(self.options.queues or ["all"]),
            concurrency=self.options.concurrency,
            types=len(registry.known_types()),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._start()
        while not self.claimer.stopping.is_set() and not self.orders.stop(0.25):
            pass
        return self._end()

    def renew(self, gone: str) -> None:
        """This worker was declared gone: drop what it held and go on under a new id."""
        with self._renewing:
            if self.id != gone:
                return
            held = self.holdings.all()
            for holding in held:
                holding.lose()
            self.holdings.settled(self.holdings.take_buffered())
            self.id = self._register()
        log.warning("declared gone; started again", gone=gone, worker=self.id, dropped=len(held))

    def _register(self) -> str:
        name = self.options.name or platform.node()
        id = f"{name}-{uuid4().hex[:12]}"
        claims.register_worker(
            id,
            queues=self.options.queues,
            concurrency=self.options.concurrency,
            host=platform.node(),
            pid=os.getpid(),
            version=VERSION,
            metadata={"types": registry.known_types(), "python": platform.python_version()},
        )
        self.board.name_worker(id)
        return id

    def _start(self) -> None:
        self._executors = [
            self._thread(f"executor-{n}", self.executors.work, n)
            for n in range(self.options.concurrency)
        ]
        self._finisher = self._thread("finisher", self.finisher.run)
        self._others = [
            self._thread("claimer", self.claimer.run),
            self._thread("maintenance", self.maintenance.run),
        ]
        if any(handler.is_coroutine for handler in registry.handlers()):
            self._thread("event-loop", self.executors.work_coroutines)
        self._pulse = self._thread("pulse", self.pulse.run)

    def _thread(self, name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
        """Start a thread. Should it crash, the process ends: a worker without it only looks alive."""

        def guarded() -> None:
            try:
                target(*args)
            except BaseException:
                log.critical("thread crashed; the worker ends", thread=name, exc_info=True)
                self._code = 1
                self.claimer.stop()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _on_overrun(self, holding: Holding, failure: Failure) -> None:
        log.error(
            "handler goes on after its timeout; the process ends and is started anew",
            task=holding.task.key,
            type=holding.task.type,
        )
        self.finisher.report(failure, holding)
        self._code = RECYCLE
        self.claimer.stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self.claimer.stop()

    def _end(self) -> int:
        """Stop claiming, finish what runs within the grace, give the rest back."""
        log.info("stopping", worker=self.id, held=len(self.holdings.all()))
        self.claimer.stop()
        self.maintenance.ended.set()
        self._others[0].join(timeout=5)
        buffered = self.holdings.take_buffered()
        self.holdings.close()
        self._give_back(buffered)
        deadline = time.monotonic() + self.options.grace
        while time.monotonic() < deadline and self._signals < 2 and not self.orders.at_once():
            for holding in self.holdings.all():
                if holding.context:
                    holding.context.stopping = True
            if self.holdings.wait_empty(0.1):
                break
        self.finisher.close()
        self._finisher.join(timeout=2)
        self.finisher.abandon()
        self.pulse.ended.set()
        unfinished = self.holdings.all() or self._code == RECYCLE
        released = self._last_word()
        log.info("stopped", worker=self.id, given_back=len(buffered) + len(released))
        if unfinished:
            # Handlers that outlived the grace still run in their threads; their tasks are others'
            # now, so the process must not linger for them.
            os._exit(self._code)
        for thread in [*self._executors, *self._others, self._pulse]:
            thread.join(timeout=2)
        connections.close_all()
        return self._code

    def _give_back(self, buffered: list[Holding]) -> None:
        if buffered:
            _try(claims.release_tasks, [holding.key for holding in buffered])
            self.holdings.settled(buffered)

    def _last_word(self) -> list[UUID]:
        return _try(claims.unregister_worker, self.id) or []


def _try(verb: Callable[..., T], *args: Any) -> T | None:
    """At the very end a database that does not answer is no reason to hang: others will rescue.

    The main thread's connection may have died since it was last used, so a new one is made.
    """
    connection.close()
    try:
        return verb(*args)
    except (DatabaseError, InterfaceError) as error:
        log.warning("could not tell the database at the end", error=str(error).strip())
        return None
