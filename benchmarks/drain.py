"""Drain: tasks queued first, then worker processes; until the database shows none unfinished."""

from typing import Any

from benchmarks.bench import Bench, Result, cell, ratio, table


def tables(bench: Bench) -> list[str]:
    n = bench.n(50_000)
    rows = []
    for processes in (1, 2):

        def run(peer: Any, processes: int = processes) -> Result:
            return bench.drain(peer, n, processes, bench.loaded(peer, n))

        floors, ours = bench.beside_floor(f"drain with {processes}", run)
        rows.append([f"{processes}, floor", cell(floors, "rate"), "1", *used(floors)])
        rows.append([f"{processes}, ours", cell(ours, "rate"), ratio(ours, floors), *used(ours)])
    head = ["processes", "tasks/s", "x floor", "worker µs a task", "server µs a task"]
    return [table(f"Drain of {n:,} tasks", head, rows)]


def used(samples: list[Result]) -> list[str]:
    return [cell(samples, "worker_us"), cell(samples, "server_us")]
