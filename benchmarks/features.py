"""Drains of queues with rules: caps, fairness, rates, dedupe keys, dependencies. Nothing is turned
off for the plain figures either: every index, constraint and trigger is there."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.bench import FLOOR, OURS, Bench, Result, Samples, cell, ratio, table
from benchmarks.ours import CHAIN, TENANTS


class Feature(NamedTuple):
    """`rule`: what is set on the queue row; `kind`: how the tasks are enqueued (benchmarks.ours)."""

    title: str
    rule: str = ""
    kind: str = "bulk"


FEATURES = [
    Feature("plain"),
    Feature("cap of 100 on the queue", "max_concurrent = 100"),
    Feature("cap of 10 on the queue", "max_concurrent = 10"),
    Feature(f"cap of 10 a tenant, {TENANTS} tenants", "max_per_tenant = 10", "tenants"),
    Feature(f"fair, {TENANTS} tenants", "fair = true", "tenants"),
    Feature("rate limit that is not reached", "rate_limit = 1000000, burst = 1000000"),
    Feature("a dedupe key each", kind="keyed"),
    Feature(f"chains of {CHAIN} tasks", kind="chains"),
]


def tables(bench: Bench) -> list[str]:
    n = bench.n(20_000)
    floors: list[Samples] = []
    results: list[Samples] = []
    for feature in FEATURES:
        floors.append([])
        results.append([])
        for _ in range(bench.reps):
            label = f"{feature.title}, floor"
            floor = bench.measure(label, lambda: bench.drain(FLOOR, n, 1, bench.loaded(FLOOR, n)))
            ours = bench.measure(feature.title, run(bench, feature, n))
            floors[-1] += [floor] if floor else []
            results[-1] += [ours] if ours else []
    rows = [
        [
            feature.title,
            *(cell(ours, key) for key in ("enqueued", "rate")),
            ratio(ours, floor),
            ratio(ours, results[0]),
            *(cell(ours, key) for key in ("worker_us", "server_us")),
        ]
        for feature, floor, ours in zip(FEATURES, floors, results, strict=True)
    ]
    head = ["queue", "enqueue, tasks/s", "drain, tasks/s", "x floor", "x plain"]
    head += ["worker µs a task", "server µs a task"]
    return [table(f"Queues with rules: {n:,} tasks, one process", head, rows)]


def run(bench: Bench, feature: Feature, n: int) -> Callable[[], Result]:
    def one() -> Result:
        enqueued = 0.0

        def load(database: str) -> None:
            nonlocal enqueued
            if feature.rule:
                bench.server.execute(
                    database, f"UPDATE queues SET {feature.rule} WHERE name = 'default'"
                )
            enqueued = n / bench.agent(OURS, database, "load", feature.kind, n)

        result = bench.drain(OURS, n, 1, load)
        return {"enqueued": enqueued} | result

    return one
