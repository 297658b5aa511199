"""Enqueue: call after call, each committed on its own; and 10,000 tasks in one call."""

from typing import Any

from benchmarks.agent import WARM_UP
from benchmarks.bench import Bench, Result, cell, ratio, table
from benchmarks.workers import Wrong


def tables(bench: Bench) -> list[str]:
    rows = []
    for verb, tasks, what in (("one", 2_000, "one by one"), ("bulk", 10_000, "in bulk")):
        n = bench.n(tasks)

        def run(peer: Any, verb: str = verb, n: int = n) -> Result:
            return enqueue(bench, peer, verb, n)

        floors, ours = bench.beside_floor(f"enqueue {what}", run)
        figures = [cell(floors, "rate"), cell(ours, "rate"), ratio(ours, floors)]
        rows.append([what, f"{n:,}", *figures, cell(floors, "server_us"), cell(ours, "server_us")])
    head = ["enqueue", "tasks", "floor, tasks/s", "ours, tasks/s", "x floor"]
    return [table("Enqueue", [*head, "floor, server µs", "ours, server µs"], rows)]


def enqueue(bench: Bench, peer: Any, verb: str, n: int) -> Result:
    database = bench.database(peer)
    bench.server.checkpoint()
    before = bench.server_seconds()
    seconds = bench.agent(peer, database, verb, n)
    used = bench.server_seconds() - before
    if (made := bench.server.execute(database, peer.pending)) != n + WARM_UP:
        raise Wrong(f"{made} rows for {n + WARM_UP} tasks")
    return {"rate": n / seconds, "server_us": used * 1e6 / n}
