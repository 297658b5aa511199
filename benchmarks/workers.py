"""Worker processes of one run, what their handlers wrote down, and the checks of it."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.server import Server

HERE = Path(__file__).parent
Record = tuple[int, int]  # nanoseconds, sequence number


class Wrong(Exception):
    """A run whose outcome is not what it must be: a task lost or run twice, a process that fell."""


def environment(server: Server, database: str, log: str) -> dict[str, str]:
    """Of every process of a run: the project's own variables, with nothing tuned."""
    mine = ("PG", "QUEUE_", "DATABASE_URL")
    return {name: v for name, v in os.environ.items() if not name.startswith(mine)} | {
        "DATABASE_URL": server.of(database),
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "SECRET_KEY": "only-for-benchmarks",
        "OPSCONSOLE_HOME": str(server.home),
        "OPSCONSOLE_DEMO": "false",
        "LOG_LEVEL": "WARNING",
        "BENCH_LOG": log,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }


class Workers:
    """Some worker processes and their log."""

    def __init__(self, server: Server, children: list[subprocess.Popen[bytes]], log: Path) -> None:
        self.server, self.children, self.log = server, children, log

    def count(self) -> int:
        """How many tasks were started."""
        return sum(file.stat().st_size for file in self.log.glob("*.log")) // 16

    def wait(self, n: int, seconds: float = 300) -> None:
        """Until n tasks have started."""
        deadline = time.monotonic() + seconds
        while (count := self.count()) < n:
            if time.monotonic() > deadline:
                raise Wrong(f"{count} of {n} tasks started in {seconds:.0f} s")
            if all(child.poll() is not None for child in self.children):
                raise Wrong(f"the worker ended: {(self.log / 'stderr').read_text()[-1500:]}")
            time.sleep(0.005)

    def records(self) -> list[Record]:
        """What was started, in order of time."""
        found = []
        for file in self.log.glob("*.log"):
            found += [(ns, seq) for seq, ns in struct.iter_unpack("<qq", file.read_bytes())]
        return sorted(found)

    def seconds(self) -> tuple[float, float]:
        """Processor seconds so far: the workers', the server's."""
        groups = [child.pid for child in self.children]
        return machine.group_seconds(groups), machine.server_seconds(self.server)

    def end(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(30)
            except subprocess.TimeoutExpired as error:
                raise Wrong("a worker did not end within 30 s of SIGTERM") from error
            finally:
                self._kill(child)

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def working(server: Server, database: str, peer: Any, count: int = 1) -> Iterator[Workers]:
    """Start `count` worker processes of the peer; end them on leaving."""
    log = Path(tempfile.mkdtemp(prefix="log-", dir=server.home))
    workers = Workers(server, [], log)
    try:
        with (log / "stderr").open("wb") as errors:
            for _ in range(count):
                workers.children.append(
                    subprocess.Popen(
                        peer.worker_command(),
                        env=environment(server, database, str(log)),
                        cwd=server.home,
                        stdout=errors,
                        stderr=errors,
                        start_new_session=True,
                    )
                )
        yield workers
        workers.end()
    finally:
        for child in workers.children:
            workers._kill(child)
        shutil.rmtree(log, ignore_errors=True)


def check_once(records: list[Record], n: int | None = None) -> None:
    """Raises Wrong if a task ran twice, or, with n, if not each of 0 to n-1 ran."""
    seen = {seq for _, seq in records}
    if len(seen) != len(records):
        raise Wrong(f"{len(records) - len(seen)} tasks ran twice")
    if n is not None and seen != set(range(n)):
        raise Wrong(f"{len(seen)} tasks ran, of {n}")


def wait_finished(server: Server, database: str, peer: Any, n: int) -> int:
    """Until the database shows no unfinished task; when that was. Raises Wrong if not all are done."""
    deadline = time.monotonic() + 60
    while left := server.execute(database, peer.pending):
        if time.monotonic() > deadline:
            raise Wrong(f"{left} tasks never finished")
        time.sleep(0.01)
    end = time.monotonic_ns()
    if (done := server.execute(database, peer.finished)) != n:
        raise Wrong(f"{done} tasks completed, of {n}")
    return end
