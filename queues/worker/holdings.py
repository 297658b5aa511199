"""The tasks this process holds: waiting in the buffer, running, or with an outcome to record."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from queues import registry
from queues.claims import ClaimedTask
from queues.worker.context import TaskContext
from queues.worker.wake import Wake

RATE_WINDOW_SECONDS = 0.1
LARGEST_CLAIM = 500


class Holding:
    """One claimed task. `started` (monotonic seconds) is None while it waits in the buffer.

    `lost`: it is another's by now. `abandoned`: its outcome was recorded while its handler, which
    does not stop at its timeout, still runs; whatever that handler returns is thrown away.
    `cancel` ends a coroutine that runs it. `share`: of a thread's time, less than 1 where one call
    takes many tasks; 0 for a coroutine, which takes a place on the event loop instead.
    """

    __slots__ = (
        *("abandoned", "cancel", "claimed", "context", "lost", "returned", "share", "started"),
        "task",
    )

    def __init__(self, task: ClaimedTask, claimed: float) -> None:
        self.task = task
        self.claimed = claimed
        self.share = registry.share(task.type)
        self.started: float | None = None
        self.returned = False
        self.lost = False
        self.abandoned = False
        self.context: TaskContext | None = None
        self.cancel: Callable[[], object] | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.task.key, self.task.lease

    def begin(self) -> TaskContext:
        """The handler starts now: so does the clock of the task's timeout."""
        self.started = time.monotonic()
        self.context = TaskContext(self.task, self.started + self.task.timeout_seconds)
        self.context.lost = self.lost
        return self.context

    def lose(self) -> None:
        self.lost = True
        if self.context is not None:
            self.context.lost = True
        if self.cancel is not None:
            self.cancel()


class Holdings:
    """Thread-safe book of what is held, and the buffer from which executors take their work.

    Taking a task and giving it back cost no lock: the buffer is a deque and the book a set, whose
    single steps are atomic. The lock is for those who wait.
    """

    def __init__(self, concurrency: int, low: Wake | None = None) -> None:
        self.concurrency = concurrency
        # Set when the buffer runs low: the claimer waits on it.
        self.low = low or Wake()
        self._lock = threading.Lock()
        # For executors; all others wait for _changed.
        self._filled = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._buffer: deque[Holding] = deque()
        self._parked: deque[Holding] = deque()
        self._held: set[Holding] = set()
        self._waiting = 0
        self._low_mark = 0
        # The mean share of the tasks of the latest claim.
        self._share = 1.0
        self._finished = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._closed = False
        # False while outcomes cannot be recorded: then nothing more is claimed.
        self.recording = True

    def room(self) -> int:
        """How many more tasks to claim: what the free threads can take, or what was finished in the
        last 100 ms: one such batch runs while the next is on its way.

        A buffer that deep keeps quick handlers busy; slow ones never sit on tasks of others.
        """
        if not self.recording:
            return 0
        now = time.monotonic()
        self._samples.append((now, self._finished))
        while self._samples[0][0] < now - RATE_WINDOW_SECONDS and len(self._samples) > 1:
            self._samples.popleft()
        recent = min(LARGEST_CLAIM, self._finished - self._samples[0][1])
        waiting = len(self._buffer) + len(self._parked)
        if recent > self.concurrency:
            self._low_mark = recent
            return recent if waiting <= recent else 0
        self._low_mark = 0
        return min(LARGEST_CLAIM, self._places())

    def _places(self) -> int:
        """Free places: of threads, in tasks like those of the latest claim, and of the event loop
        where that claim brought coroutines alone. Each claim may double what runs there, no more:
        what comes next may be for threads. Coroutines without a place there count for threads, so that
        a full loop neither stops the threads nor lets us hoard.
        """
        unfinished = [holding for holding in list(self._held) if not holding.returned]
        parked = len(self._parked)
        in_loop = sum(holding.share == 0 for holding in unfinished) - parked
        in_threads = sum(holding.share for holding in unfinished) + parked
        if self._share == 0 and in_loop < registry.COROUTINES:
            return min(registry.COROUTINES - in_loop, in_loop + self.concurrency)
        return round((self.concurrency - in_threads) / (self._share or 1.0))

    def add(self, tasks: list[ClaimedTask]) -> None:
        now = time.monotonic()
        new = [Holding(task, now) for task in tasks]
        share = sum(holding.share for holding in new) / len(new)
        with self._changed:
            self._share = share
            self._held.update(new)
            self._buffer.extend(new)
            # Who is woken for nothing delays the others.
            self._filled.notify(min(len(new), self._waiting))

    def next(self) -> Holding | None:
        """The next task to run, waiting for one; None when closed and empty."""
        while True:
            try:
                holding = self._buffer.popleft()
            except IndexError:
                self.low.set()
                with self._filled:
                    self._waiting += 1
                    self._filled.wait_for(lambda: self._buffer or self._closed)
                    self._waiting -= 1
                    if not self._buffer and self._closed:
                        return None
            else:
                if self._low_mark and len(self._buffer) <= self._low_mark:
                    self.low.set()
                return holding

    def more_of(self, type: str, most: int) -> list[Holding]:
        """Tasks of the same type that come next in the buffer, for a handler that takes many. A
        suspect, which runs on its own, ends the batch."""
        more: list[Holding] = []
        with self._changed:
            while len(more) < most:
                try:
                    holding = self._buffer.popleft()
                except IndexError:
                    break
                if holding.task.type != type or holding.task.suspect:
                    self._buffer.appendleft(holding)
                    break
                more.append(holding)
        return more

    def park(self, holding: Holding) -> None:
        """A coroutine for which the event loop has no place yet; it waits like those in the buffer."""
        self._parked.append(holding)

    def unpark(self) -> Holding | None:
        """The next coroutine that waits for a place."""
        try:
            return self._parked.popleft()
        except IndexError:
            return None

    def handler_returned(self, holding: Holding) -> None:
        holding.returned = True
        self._finished += 1

    def settled(self, finished: Iterable[Holding]) -> None:
        """The outcomes of these are recorded, or others have them: they are held no more."""
        with self._changed:
            self._held.difference_update(finished)
            self._changed.notify_all()

    def put_back(self, taken: list[Holding]) -> None:
        """These could not be given back: they wait in the buffer as before."""
        with self._changed:
            self._buffer.extendleft(reversed(taken))
            self._filled.notify(len(taken))

    def take_buffered(self, older_than: float = 0.0) -> list[Holding]:
        """Take tasks out of the buffer that waited this many seconds, to give them back."""
        limit = time.monotonic() - older_than
        taken: list[Holding] = []
        with self._changed:
            for waiting in (self._buffer, self._parked):
                try:
                    while waiting[0].claimed <= limit:
                        taken.append(waiting.popleft())
                except IndexError:
                    continue
        return taken

    def count(self) -> int:
        return len(self._held)

    def all(self) -> list[Holding]:
        with self._changed:
            return list(self._held)

    def close(self) -> None:
        """No more work: executors end when the buffer is empty."""
        with self._changed:
            self._closed = True
            self._filled.notify_all()
            self._changed.notify_all()

    def wait_empty(self, seconds: float) -> bool:
        """Wait until nothing is held; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout=seconds)
