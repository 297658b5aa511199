"""What the machine is, and whose processor time was used. Without /proc the times are unknown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.server import Server

PROC = Path("/proc")


class Process(NamedTuple):
    parent: int
    group: int
    seconds: float
    of_ended_children: float


def processes() -> dict[int, Process]:
    if not (PROC / "self/stat").exists():
        return {}
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in os.listdir(PROC):
        if name.isdigit():
            try:
                fields = (
                    (PROC / name / "stat").read_text(errors="replace").rpartition(")")[2].split()
                )
            except OSError:
                continue
            user, system, ended_user, ended_system = (int(field) / tick for field in fields[11:15])
            found[int(name)] = Process(
                int(fields[1]), int(fields[2]), user + system, ended_user + ended_system
            )
    return found


def group_seconds(groups: Iterable[int]) -> float:
    """Processor time so far of the living processes of these process groups."""
    wanted = set(groups)
    return sum(p.seconds for p in processes().values() if p.group in wanted)


def server_seconds(server: Server) -> float:
    """Processor time so far of all PostgreSQL's processes, the ended ones too; 0 if not local."""
    found = processes()
    backend = found.get(server.backend_pid())
    if backend is None or backend.parent not in found:
        return 0.0
    main = found[backend.parent]
    children = sum(p.seconds for p in found.values() if p.parent == backend.parent)
    return main.seconds + main.of_ended_children + children


def busy_and_ours(server: Server) -> tuple[float, float]:
    """Seconds that the machine's processors worked so far, and those of this benchmark.

    Of child processes only those that have ended count: ask when none is running.
    """
    if not (PROC / "stat").exists():
        return 0.0, 0.0
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    busy = (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")
    return busy, sum(os.times()[:4]) + server_seconds(server)


def resident_mib(group: int) -> tuple[float, float]:
    """Resident MiB of the largest process of a group, and the sum of the group's proportional
    shares, which counts memory that they share once."""
    largest = shares = 0.0
    for pid, process in processes().items():
        if process.group == group:
            status = (PROC / str(pid) / "status").read_text()
            largest = max(largest, _kib(status, "VmRSS") / 1024)
            shares += _kib((PROC / str(pid) / "smaps_rollup").read_text(), "Pss") / 1024
    return largest, shares


def _kib(text: str, key: str) -> int:
    return next(
        (int(line.split()[1]) for line in text.split("\n") if line.startswith(key + ":")), 0
    )


def describe(server: Server) -> str:
    """Versions, settings and machine, as Markdown."""
    packages = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("django", "psycopg"))
    settings = ", ".join(
        f"{name} {server.show(name)}" for name in ("fsync", "synchronous_commit", "shared_buffers")
    )
    return (
        f"PostgreSQL {server.show('server_version')} ({settings}), CPython "
        f"{platform.python_version()}, {packages}.\n"
        f"{os.cpu_count()} processors ({_model()}), {_memory()}, {platform.system()} "
        f"{platform.release()}; one fdatasync takes {_sync_ms():.2f} ms.\n"
        "Figures are medians (least-most). The floor is bare psycopg over one small table: claim "
        "100, finish 100."
    )


def _model() -> str:
    if (PROC / "cpuinfo").exists():
        for line in (PROC / "cpuinfo").read_text().split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 2**30:.0f} GiB"


def _sync_ms() -> float:
    sync = getattr(os, "fdatasync", os.fsync)
    times = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(50):
            os.write(file.fileno(), b"x" * 8192)
            start = time.monotonic()
            sync(file.fileno())
            times.append((time.monotonic() - start) * 1000)
    return statistics.median(times)
