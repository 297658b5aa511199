"""Depth: the rate beside a million or ten million other rows, against the empty table's.

Each backlog is filled once; the runs then take turns with the empty table and the floor.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from benchmarks.bench import (
    FLOOR,
    OURS,
    Bench,
    Result,
    Samples,
    cell,
    per_task,
    ratio,
    table,
)
from benchmarks.workers import Wrong, check_once, working

TASK = "'noop', jsonb_build_object('seq', s, 'pad', repeat('x', 72))"
SERIES = "generate_series(%(lo)s::int, %(lo)s::int + %(n)s::int - 1) s"
# Oldest first, over the 29 days before now: none is due to be archived or dropped.
DONE = f"""(type, payload, status, attempts, lease, worker_id, started_at, completed_at)
    SELECT {TASK}, 'completed', 1, 1, 'filled', f.at, f.at FROM {SERIES}, LATERAL (
        SELECT now() - interval '29 days' * (1 - (s - %(lo)s::int) / %(n)s::float8) AS at) f"""
FAR_TASK = "(SELECT id FROM tasks WHERE type = 'far')"


class Backlog(NamedTuple):
    """`served`: its rows are pending, so the worker takes from it; else tasks are added to it."""

    title: str
    rows: int
    statements: tuple[str, ...]
    served: bool = False


BACKLOGS = [
    Backlog("pending", 1_000_000, (OURS.fill,), served=True),
    Backlog(
        "scheduled",
        1_000_000,
        (
            f"""INSERT INTO tasks (type, payload, status, run_at)
            SELECT {TASK}, 'scheduled', clock_timestamp() + interval '1 day' + s * interval '1 ms'
            FROM {SERIES}""",
        ),
    ),
    Backlog(
        "blocked",
        1_000_000,
        (
            "INSERT INTO tasks (type, status, run_at)"
            " VALUES ('far', 'scheduled', clock_timestamp() + interval '1 day')",
            f"""INSERT INTO tasks (type, payload, status, waits_on)
            SELECT {TASK}, 'blocked', 1 FROM {SERIES}""",
            f"""INSERT INTO task_dependencies (task_id, predecessor_id)
            SELECT id, {FAR_TASK} FROM tasks WHERE status = 'blocked'""",
        ),
    ),
    Backlog("finished, in tasks", 10_000_000, (f"INSERT INTO tasks {DONE}",)),
    Backlog(
        "finished, in tasks_archive",
        10_000_000,
        (
            "SELECT make_archive_partitions((now() - interval '30 days')::date)",
            f"INSERT INTO tasks_archive {DONE}",
        ),
    ),
]


def tables(bench: Bench) -> list[str]:
    n = bench.n(20_000)
    rows = []
    for backlog in BACKLOGS:
        floors, empty, deep = beside(bench, backlog, n)
        rows.append(
            [
                f"{bench.n(backlog.rows):,} {backlog.title}",
                *(cell(samples, "rate") for samples in (floors, empty, deep)),
                ratio(deep, empty),
                *(cell(samples, "server_us") for samples in (empty, deep)),
            ]
        )
    head = ["backlog", "floor, empty", "ours, empty", "ours, with it", "with / empty"]
    head += ["server µs a task, empty", "with it"]
    return [table(f"Depth: {n:,} tasks a run, tasks/s", head, rows)]


def beside(bench: Bench, backlog: Backlog, n: int) -> tuple[Samples, Samples, Samples]:
    """Results of the floor, of ours with an empty table, of ours beside the backlog."""
    database = bench.database(OURS, "deep")
    results: tuple[Samples, Samples, Samples] = ([], [], [])
    if not bench.measure(f"fill, {backlog.title}", lambda: fill(bench, backlog, database)):
        return results
    for rep in range(bench.reps):
        runs = [
            ("floor", lambda: timed(bench, FLOOR, bench.database(FLOOR), n, 0)),
            ("empty", lambda: timed(bench, OURS, bench.database(OURS), n, 0)),
            (
                backlog.title,
                lambda: timed(bench, OURS, database, n, rep * 2 * n, add=not backlog.served),  # noqa: B023
            ),
        ]
        for samples, (label, run) in zip(results, runs, strict=True):
            if result := bench.measure(f"depth, {label}", run):
                samples.append(result)
    bench.server.drop(database)
    return results


def fill(bench: Bench, backlog: Backlog, database: str) -> Result:
    span = {"lo": 100_000_000, "n": bench.n(backlog.rows)}
    start = time.monotonic()
    for statement in backlog.statements:
        bench.server.fill(database, statement, span if "%(n)s" in statement else None)
    bench.server.settle(database)
    return {"rows": span["n"], "seconds": time.monotonic() - start}


def timed(bench: Bench, peer: Any, database: str, n: int, lo: int, *, add: bool = True) -> Result:
    """Starts of n tasks a second, after the first tenth; each was recorded once as finished."""
    if add:
        bench.server.fill(database, peer.fill, {"lo": lo, "n": n + n // 10})
    done = bench.server.execute(database, peer.finished)
    bench.server.checkpoint()
    skip = n // 10
    with working(bench.server, database, peer) as workers:
        workers.wait(skip)
        seen, before = workers.count(), workers.seconds()
        workers.wait(n)
        reached, after = workers.count(), workers.seconds()
        workers.end()
        records = workers.records()
    check_once(records)
    done = bench.server.execute(database, peer.finished) - done
    if done != len(records):
        raise Wrong(f"{len(records)} tasks ran, {done} were completed")
    span = (records[n - 1][0] - records[skip][0]) / 1e9
    return {"rate": (n - 1 - skip) / span} | per_task(before, after, reached - seen)
