"""Running tasks: from the call of a handler to the outcome that will be recorded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog
from django.db import connections

from queues import registry
from queues.worker import judge
from queues.worker.board import Board
from queues.worker.holdings import Holding, Holdings
from queues.worker.isolated import run_isolated
from queues.worker.outcomes import Outcome

log = structlog.get_logger("queues.worker")


class Executors:
    """What the executor threads of one worker process do, and its event loop for coroutines."""

    def __init__(
        self, holdings: Holdings, board: Board, report: Callable[[Outcome, Holding], None]
    ) -> None:
        self.holdings = holdings
        self._board = board
        self._report = report
        threads = holdings.concurrency
        self._coroutine_slots = deque(range(threads, threads + registry.COROUTINES))
        self.loop = asyncio.new_event_loop()

    def work(self, slot: int) -> None:
        """The life of an executor thread: run what is buffered until the book is closed."""
        mine = connections.all()
        try:
            while holding := self.holdings.next():
                for connection in mine:
                    if connection.connection is not None:
                        connection.close_if_unusable_or_obsolete()
                self._board.begin(slot, *holding.key)
                self._run(holding)
                self._board.end(slot)
                for connection in mine:
                    if connection.connection is not None and not connection.get_autocommit():
                        # The next task must not be taken into a transaction that was forgotten.
                        log.error(
                            "handler left a transaction open; rolled back", type=holding.task.type
                        )
                        connection.close()
        finally:
            connections.close_all()

    def work_coroutines(self) -> None:
        """The life of the event loop's thread."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            connections.close_all()

    def _run(self, holding: Holding) -> None:
        task = holding.task
        handler = registry.find(task.type)
        if handler is None:
            self._done(holding, judge.no_handler(task))
        elif task.suspect:
            self._done(holding, run_isolated(holding, handler))
        elif handler.batch > 1:
            self._run_many([holding, *self.holdings.more_of(task.type, handler.batch - 1)], handler)
        elif handler.is_coroutine:
            self.loop.call_soon_threadsafe(self._start_coroutine, holding, handler)
        else:
            self._done(holding, judge.call(holding, handler))

    def _run_many(self, holdings: list[Holding], handler: registry.Handler) -> None:
        outcomes = judge.call_many(holdings, handler)
        for holding, outcome in zip(holdings, outcomes, strict=True):
            self._done(holding, outcome)

    def _start_coroutine(self, holding: Holding, handler: registry.Handler) -> None:
        # Beyond the slots, which only batches claimed before exceed, a task runs unrecorded.
        slot = self._coroutine_slots.popleft() if self._coroutine_slots else None
        if slot is not None:
            self._board.begin(slot, *holding.key)
        running = self.loop.create_task(judge.await_call(holding, handler))
        # The loop itself keeps only a weak reference to a task.
        _running.add(running)
        running.add_done_callback(lambda done: self._coroutine_done(done, holding, slot))

    def _coroutine_done(
        self, done: asyncio.Task[Outcome], holding: Holding, slot: int | None
    ) -> None:
        _running.discard(done)
        if slot is not None:
            self._board.end(slot)
            self._coroutine_slots.append(slot)
        self._done(holding, done.result())

    def _done(self, holding: Holding, outcome: Outcome) -> None:
        self.holdings.handler_returned(holding)
        if not holding.abandoned:
            self._report(outcome, holding)


_running: set[asyncio.Task[Outcome]] = set()
