"""The tasks this process holds: waiting in the buffer, running, or with an outcome to record."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from queues.claims import ClaimedTask
from queues.worker.context import TaskContext

RATE_WINDOW_SECONDS = 0.1
LARGEST_BUFFER = 500


@dataclass(slots=True)
class Holding:
    """One claimed task. `started` (monotonic seconds) is None while it waits in the buffer."""

    task: ClaimedTask
    context: TaskContext
    claimed: float = field(default_factory=time.monotonic)
    started: float | None = None
    returned: bool = False

    @property
    def key(self) -> tuple[UUID, int]:
        return self.task.id, self.task.lease


class Holdings:
    """Thread-safe book of what is held, and the buffer from which executors take their work."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._changed = threading.Condition()
        self._buffer: deque[Holding] = deque()
        # By id and lease: a task taken away may come back while its old handler still runs.
        self._held: dict[tuple[UUID, int], Holding] = {}
        self._running = 0
        self._finished: deque[tuple[float, int]] = deque()
        self._closed = False

    def room(self) -> int:
        """How many more tasks to claim: the free threads, or what was finished in the last 100 ms.

        A buffer that deep keeps quick handlers busy; slow ones never sit on tasks of others.
        """
        with self._changed:
            horizon = time.monotonic() - RATE_WINDOW_SECONDS
            while self._finished and self._finished[0][0] < horizon:
                self._finished.popleft()
            recent = min(LARGEST_BUFFER, sum(count for _, count in self._finished))
            waiting = len(self._buffer)
            if recent > self.concurrency:
                return recent - waiting if waiting <= recent // 2 else 0
            return self.concurrency - self._running - waiting

    def add(self, tasks: Iterable[ClaimedTask]) -> None:
        with self._changed:
            for task in tasks:
                holding = Holding(task, TaskContext(task))
                self._held[holding.key] = holding
                self._buffer.append(holding)
            self._changed.notify_all()

    def next(self) -> Holding | None:
        """The next task to run, waiting for one; None when closed and empty."""
        with self._changed:
            while not self._buffer:
                if self._closed:
                    return None
                self._changed.wait()
            holding = self._buffer.popleft()
            holding.started = time.monotonic()
            holding.context.begin()
            self._running += 1
            return holding

    def handler_returned(self, holding: Holding) -> None:
        with self._changed:
            holding.returned = True
            self._running -= 1

    def settled(self, finished: Iterable[Holding]) -> None:
        """The outcomes of these are recorded: they are held no more."""
        with self._changed:
            count = sum(self._held.pop(holding.key, None) is not None for holding in finished)
            self._finished.append((time.monotonic(), count))
            self._changed.notify_all()

    def dropped(self, given_back: Iterable[Holding]) -> None:
        """These were given back or lost unrun. They are no sign of how fast the work goes."""
        with self._changed:
            for holding in given_back:
                self._held.pop(holding.key, None)
            self._changed.notify_all()

    def put_back(self, taken: list[Holding]) -> None:
        """These could not be given back: they wait in the buffer as before."""
        with self._changed:
            self._buffer.extendleft(reversed(taken))
            self._changed.notify_all()

    def take_buffered(self, older_than: float = 0.0) -> list[Holding]:
        """Take tasks out of the buffer that waited this many seconds, to give them back."""
        with self._changed:
            limit = time.monotonic() - older_than
            old = [holding for holding in self._buffer if holding.claimed <= limit]
            self._buffer = deque(h for h in self._buffer if h.claimed > limit)
            return old

    def all(self) -> list[Holding]:
        with self._changed:
            return list(self._held.values())

    def close(self) -> None:
        """No more work: executors end when the buffer is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_empty(self, seconds: float) -> bool:
        """Wait until nothing is held; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout=seconds)
