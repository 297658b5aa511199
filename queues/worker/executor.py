"""Running tasks: from the call of a handler to the outcome that will be recorded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog
from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

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
        self._largest_batch = registry.largest_batch()
        in_threads = holdings.concurrency * self._largest_batch
        self._coroutine_slots = deque(range(in_threads, in_threads + registry.COROUTINES))
        self._running: set[asyncio.Task[Outcome]] = set()
        self._looking_after: asyncio.Task[None] | None = None
        self.loop = asyncio.new_event_loop()

    def work(self, number: int) -> None:
        """The life of an executor thread: run what is buffered until the book is closed."""
        slot = number * self._largest_batch
        mine = connections.all()
        try:
            while holding := self.holdings.next():
                for connection in mine:
                    if connection.connection is not None:
                        connection.close_if_unusable_or_obsolete()
                self._board.begin(slot, *holding.key)
                self._run(holding, slot)
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

    def _run(self, holding: Holding, slot: int) -> None:
        task = holding.task
        handler = registry.find(task.type)
        if holding.lost:
            self._done(holding, judge.NOTHING)
        elif handler is None:
            self._done(holding, judge.no_handler(task))
        elif task.suspect:
            self._done(holding, run_isolated(holding, handler))
        elif handler.batch > 1:
            more = self.holdings.more_of(task.type, handler.batch - 1)
            self._run_many([holding, *more], handler, slot)
        elif handler.is_coroutine:
            self.loop.call_soon_threadsafe(self._start_coroutine, holding, handler)
        else:
            self._done(holding, judge.call(holding, handler))

    def _run_many(self, holdings: list[Holding], handler: registry.Handler, slot: int) -> None:
        for lost in [holding for holding in holdings if holding.lost]:
            holdings.remove(lost)
            self._done(lost, judge.NOTHING)
        for place, holding in enumerate(holdings, slot):
            self._board.begin(place, *holding.key)
        outcomes = judge.call_many(holdings, handler)
        for place, (holding, outcome) in enumerate(zip(holdings, outcomes, strict=True), slot):
            self._board.end(place)
            self._done(holding, outcome)

    def _start_coroutine(self, holding: Holding, handler: registry.Handler) -> None:
        if holding.lost:
            self._done(holding, judge.NOTHING)
            return
        if not self._coroutine_slots:
            self.holdings.park(holding)
            return
        slot = self._coroutine_slots.popleft()
        self._board.begin(slot, *holding.key)
        if self._looking_after is None or self._looking_after.done():
            # Queries of coroutines run one after the other in a thread of asgiref's, where nobody
            # else looks after connections: this goes there before what the coroutine will ask.
            self._looking_after = self.loop.create_task(sync_to_async(close_old_connections)())
        running = self.loop.create_task(judge.await_call(holding, handler))
        # The loop itself keeps only a weak reference to a task.
        self._running.add(running)
        running.add_done_callback(lambda done: self._coroutine_done(done, holding, slot))
        holding.cancel = lambda: self.loop.call_soon_threadsafe(running.cancel)

    def _coroutine_done(self, done: asyncio.Task[Outcome], holding: Holding, slot: int) -> None:
        self._running.discard(done)
        self._board.end(slot)
        self._coroutine_slots.append(slot)
        # One that was lost meanwhile leaves its place to the one after it.
        while self._coroutine_slots and (next := self.holdings.unpark()):
            if handler := registry.find(next.task.type):
                self._start_coroutine(next, handler)
        self._done(holding, judge.NOTHING if done.cancelled() else done.result())

    def _done(self, holding: Holding, outcome: Outcome) -> None:
        self.holdings.handler_returned(holding)
        if not holding.abandoned:
            self._report(outcome, holding)
