"""Programs that the demo runs: each in a process group of its own, none outliving the demo."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from opsconsole.demo.home import BASE_DIR, DemoError

PR_SET_PDEATHSIG = 1
STEADY_SECONDS = 60  # an end after this long does not count as one more in a row
LONGEST_DELAY_SECONDS = 30.0


def spawn(
    arguments: Sequence[str], environ: dict[str, str], stdout: int | None = None
) -> subprocess.Popen[str]:
    """Start this Python with the arguments; it gets SIGTERM when we die, however we die."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=BASE_DIR,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        text=True,
        process_group=0,
        preexec_fn=_die_with_parent(),
    )


def _die_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes its program. Linux only; elsewhere nothing is done."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the kernel was asked

    return ask_kernel


def stop_all(processes: Sequence[subprocess.Popen[str]], seconds: float) -> None:
    """Ask each to end; after the given time kill whatever its process group still holds."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Service:
    """A program to keep running: when it ends by itself it starts again, later each time."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environ: dict[str, str],
        give_up_after: int | None = None,
    ) -> None:
        """give_up_after: so many ends in a row, each after less than STEADY_SECONDS, are fatal."""
        self.name = name
        self._arguments = arguments
        self._environ = environ
        self._give_up_after = give_up_after
        self._failures = 0
        self._restart_at: float | None = None
        self._start()

    def _start(self) -> None:
        self._restart_at = None
        self._started_at = time.monotonic()
        self.process = spawn(self._arguments, self._environ)

    def tend(self) -> None:
        """Start the program again if it has ended and its delay is over. Raises DemoError."""
        now = time.monotonic()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._start()
        elif self.process.poll() is not None:
            stop_all([self.process], 0)  # what its group still holds would keep the port
            steady = now - self._started_at >= STEADY_SECONDS
            self._failures = 1 if steady else self._failures + 1
            self._restart_at = now + self._delay()

    def _delay(self) -> float:
        code = self.process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if self._give_up_after and self._failures >= self._give_up_after:
            raise DemoError(
                f"The {self.name} ended {self._failures} times in a row (last: {how}): "
                "see its reason above."
            )
        delay = min(2.0 ** (self._failures - 1), LONGEST_DELAY_SECONDS)
        sys.stderr.write(f"The {self.name} ended ({how}): it starts again in {delay:.0f} s.\n")
        return delay
