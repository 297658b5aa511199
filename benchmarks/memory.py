"""Memory of one worker after 20,000 and after 100,000 tasks."""

from typing import Any

from benchmarks import machine
from benchmarks.bench import Bench, Result, cell, table
from benchmarks.workers import check_once, wait_finished, working


def tables(bench: Bench) -> list[str]:
    marks = (bench.n(20_000), bench.n(100_000))
    floors, ours = bench.beside_floor("memory", lambda peer: memory(bench, peer, marks))
    keys = ("early", "late", "early_all", "late_all")
    rows = [["floor", *(cell(floors, k) for k in keys)], ["ours", *(cell(ours, k) for k in keys)]]
    after = [f"after {mark:,}" for mark in marks]
    head = ["MiB", *after, *(f"all processes, {text}" for text in after)]
    return [table("Resident memory of a worker", head, rows)]


def memory(bench: Bench, peer: Any, marks: tuple[int, int]) -> Result:
    database = bench.database(peer)
    bench.server.fill(database, peer.fill, {"lo": 0, "n": marks[1]})
    bench.server.settle(database)
    with working(bench.server, database, peer) as workers:
        [worker] = workers.children
        workers.wait(marks[0])
        early = machine.resident_mib(worker.pid)
        workers.wait(marks[1])
        wait_finished(bench.server, database, peer, marks[1])
        late = machine.resident_mib(worker.pid)
        records = workers.records()
    check_once(records, marks[1])
    return {"early": early[0], "late": late[0], "early_all": early[1], "late_all": late[1]}
