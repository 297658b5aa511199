"""The parent of worker processes: starts them, passes orders on, and replaces one that died."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import structlog

from queues.worker.board import Board, bury

log = structlog.get_logger("queues.worker")
RECYCLE = 75
STOP, AT_ONCE = b"s", b"n"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS = 1.0, 30.0, 30.0


class Orders:
    """A worker process's end of the pipe from its supervisor.

    A pipe and no signals, because a signal to the whole process group reaches the worker twice, and
    because its end tells that the supervisor has died.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._heard = b""
        self._ended = False

    def stop(self, seconds: float) -> bool:
        """Whether to stop, waiting so long for the order."""
        self._listen(seconds)
        return bool(self._heard) or self._ended

    def at_once(self) -> bool:
        """Whether to stop without waiting for running handlers."""
        self._listen(0)
        return AT_ONCE in self._heard

    def _listen(self, seconds: float) -> None:
        if self._ended:
            time.sleep(seconds)
        elif select.select([self._file], [], [], seconds)[0]:
            told = os.read(self._file, 16)
            self._heard += told
            self._ended = not told


@dataclass
class Child:
    number: int
    pid: int
    pipe: int
    started: float
    board: Board


class Supervisor:
    """Runs `work(orders, board)` in so many processes until they end or a signal comes.

    `slots`: how many tasks one of them can run at once. `may_end`: one that ends by itself, without
    a fault, is not replaced.
    """

    def __init__(
        self,
        work: Callable[[Orders, Board], int],
        processes: int,
        slots: int,
        *,
        may_end: bool = False,
    ) -> None:
        self._work = work
        self._may_end = may_end
        self._processes = processes
        self._slots = slots
        self._children: dict[int, Child] = {}
        self._buriers: list[int] = []
        self._due: list[tuple[float, int]] = []
        self._pauses = dict.fromkeys(range(processes), FIRST_PAUSE)
        self._signals = 0
        self._worst = 0

    def run(self) -> int:
        """Returns the exit code: the worst of those that ended by themselves."""
        for which in SIGNALS:
            signal.signal(which, self._on_signal)
        # A signal, such as that of a child's end, wakes the sleep below.
        self._woken, waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # What start-up made stays: the collector need not walk it again with every few hundred
        # tasks (a quarter of a worker's time), nor copy it from the parent's memory.
        gc.collect()
        gc.freeze()
        for number in range(self._processes):
            self._start(number)
        while self._children or self._due or self._buriers:
            self._reap()
            if self._signals:
                self._due = []
            for due, number in list(self._due):
                if time.monotonic() >= due:
                    self._due.remove((due, number))
                    self._start(number)
            self._sleep()
        return self._worst

    def _sleep(self) -> None:
        if select.select([self._woken], [], [], 1.0)[0]:
            os.read(self._woken, 100)

    def _start(self, number: int) -> None:
        read, write = os.pipe()
        board = Board(self._slots)
        # A signal waits until the child is known here, or is deaf there: it hears by the pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            for which in SIGNALS:
                signal.signal(which, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.close(write)
            for child in self._children.values():
                os.close(child.pipe)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            random.seed()
            _end_with(lambda: self._work(Orders(read), board))
        os.close(read)
        self._children[pid] = Child(number, pid, write, time.monotonic(), board)
        if self._signals:
            os.write(write, STOP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        for child in self._children.values():
            with contextlib.suppress(BrokenPipeError):
                os.write(child.pipe, STOP if self._signals == 1 else AT_ONCE)

    def _reap(self) -> None:
        self._buriers = [pid for pid in self._buriers if os.waitpid(pid, os.WNOHANG)[0] == 0]
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                child = self._children.pop(pid)
                os.close(child.pipe)
                self._after(child, os.waitstatus_to_exitcode(status))
                child.board.close()

    def _bury(self, board: Board, code: int) -> None:
        """In a process of its own: what later workers are forked from must hold no connection."""
        pid = os.fork()
        if pid == 0:
            _end_with(lambda: bury(board, code))
        self._buriers.append(pid)

    def _after(self, child: Child, code: int) -> None:
        """A worker that died is replaced, after a pause that grows while it keeps dying."""
        if code not in (0, RECYCLE):
            self._bury(child.board, code)
        if (code == 0 and self._may_end) or self._signals:
            self._worst = max(self._worst, abs(code) if code != RECYCLE else 0)
            return
        if code == RECYCLE:
            self._due.append((time.monotonic(), child.number))
            return
        if time.monotonic() - child.started > STEADY_SECONDS:
            self._pauses[child.number] = FIRST_PAUSE
        pause = self._pauses[child.number]
        self._pauses[child.number] = min(pause * 2, LONGEST_PAUSE)
        log.error("worker process died; starting another", pid=child.pid, code=code, pause=pause)
        self._due.append((time.monotonic() + pause, child.number))


def _end_with(work: Callable[[], int | None]) -> NoReturn:
    """In a forked process: do its work and end with its exit code, whatever happens."""
    code = 1
    try:
        code = work() or 0
    except BaseException:
        log.critical("worker process could not run", exc_info=True)
    finally:
        os._exit(code)
