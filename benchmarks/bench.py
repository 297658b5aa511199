"""What every group of measurements shares: databases, runs beside the floor, cells and tables."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from benchmarks import machine
from benchmarks.floor import Floor
from benchmarks.ours import Ours
from benchmarks.server import Server
from benchmarks.workers import HERE, Wrong, check_once, environment, wait_finished, working

FLOOR, OURS = Floor(), Ours()
QUIET_CORES = 0.2
Result = dict[str, float]
Samples = list[Result]


class Bench:
    def __init__(self, server: Server, scale: float, reps: int) -> None:
        self.server, self.scale, self.reps = server, scale, reps
        self.wrong: list[str] = []
        self._templates: dict[str, str] = {}

    def n(self, tasks: int, least: int = 500) -> int:
        return max(min(tasks, least), int(tasks * self.scale))

    def log(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    # databases

    def database(self, peer: Any, name: str = "run") -> str:
        """A database with the peer's schema, fresh."""
        if peer.name not in self._templates:
            self._templates[peer.name] = self.server.create(f"template_{peer.name}")
            self.agent(peer, self._templates[peer.name], "setup")
        return self.server.create(name, self._templates[peer.name])

    def agent(self, peer: Any, database: str, *arguments: object) -> float:
        """Enqueue in a process of its own (benchmarks.agent); the seconds it took."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.agent", peer.name, *map(str, arguments)],
            env=environment(self.server, database, str(self.server.home)),
            cwd=HERE.parent,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Wrong(f"{peer.name} {arguments[0]}: {done.stderr[-1500:]}")
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])

    # runs

    def measure(self, label: str, run: Callable[[], Result]) -> Result | None:
        """One run, with the cores that other processes took meanwhile; None if it was wrong."""
        start, (busy, mine) = time.monotonic(), machine.busy_and_ours(self.server)
        try:
            result = run()
        except (Wrong, psycopg.Error) as error:
            self.wrong.append(f"{label}: {error}")
            self.log(self.wrong[-1])
            return None
        took = time.monotonic() - start
        busy_after, mine_after = machine.busy_and_ours(self.server)
        result["others"] = max(0.0, busy_after - busy - (mine_after - mine)) / took
        self.log(f"  {label}: " + " ".join(f"{k} {v:,.4g}" for k, v in result.items()))
        return result

    def beside_floor(self, label: str, run: Callable[[Any], Result]) -> tuple[Samples, Samples]:
        """Run floor and ours in turn, as often as asked; the results of each."""
        floors, ours = [], []
        for _ in range(self.reps):
            floors.append(self.measure(f"{label}, floor", lambda: run(FLOOR)))
            ours.append(self.measure(f"{label}, ours", lambda: run(OURS)))
        return [r for r in floors if r], [r for r in ours if r]

    def drain(self, peer: Any, n: int, processes: int, load: Callable[[str], None]) -> Result:
        """Let workers do n queued tasks; from the tenth part until the database shows all done."""
        database = self.database(peer)
        load(database)
        self.server.settle(database)
        mark = n // 10
        with working(self.server, database, peer, processes) as workers:
            workers.wait(mark)
            seen, before = workers.count(), workers.seconds()
            workers.wait(n)
            end = wait_finished(self.server, database, peer, n)
            after, records = workers.seconds(), workers.records()
        check_once(records, n)
        return {"rate": (n - mark) / (end - records[mark][0]) * 1e9} | per_task(
            before, after, n - seen
        )

    def loaded(self, peer: Any, n: int, lo: int = 0) -> Callable[[str], None]:
        return lambda database: self.server.fill(database, peer.fill, {"lo": lo, "n": n})

    def server_seconds(self) -> float:
        return machine.server_seconds(self.server)

    def footnote(self) -> str:
        return (
            f"Scale {self.scale:g}, repetitions {self.reps}; * other processes took more than "
            f"{QUIET_CORES} cores during the median run."
        )


def per_task(before: tuple[float, float], after: tuple[float, float], n: int) -> Result:
    """Processor microseconds a task, of the workers and of PostgreSQL."""
    if n <= 0 or after == before:
        return {}
    return {
        "worker_us": (after[0] - before[0]) * 1e6 / n,
        "server_us": (after[1] - before[1]) * 1e6 / n,
    }


def median(samples: Samples, key: str) -> float | None:
    values = [sample[key] for sample in samples if key in sample]
    return statistics.median(values) if values else None


def cell(samples: Samples, key: str) -> str:
    """Median (least-most), with a star where the machine was not quiet."""
    values = [sample[key] for sample in samples if key in sample]
    if not values:
        return "-"
    text = number(statistics.median(values))
    if len(values) > 1:
        text += f" ({number(min(values))}-{number(max(values))})"
    return text + "*" * (statistics.median(s["others"] for s in samples) > QUIET_CORES)


def ratio(samples: Samples, base: Samples, key: str = "rate") -> str:
    value, other = median(samples, key), median(base, key)
    return f"{value / other:.2f}" if value and other else "-"


def number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.1f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"### {title}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
