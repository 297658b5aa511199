"""A drain while another session holds a snapshot, so that no dead row can be removed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks.bench import Bench, Result, cell, table
from benchmarks.workers import check_once, wait_finished, working


def tables(bench: Bench) -> list[str]:
    n = bench.n(50_000)
    rows = []
    for held in (True, False):

        def run(peer: Any, held: bool = held) -> Result:
            return fifths(bench, peer, n, held)

        label = "pinned" if held else "not pinned"
        for name, samples in zip(("floor", "ours"), bench.beside_floor(label, run), strict=True):
            figures = [cell(samples, key) for key in ("rate", "first", "last", "ratio")]
            rows.append([f"{name}, {label}", *figures])
    head = ["", "tasks/s", "first fifth", "last fifth", "last / first"]
    return [table(f"Drain of {n:,} tasks under a held snapshot", head, rows)]


def fifths(bench: Bench, peer: Any, n: int, held: bool) -> Result:
    database = bench.database(peer)
    bench.server.fill(database, peer.fill, {"lo": 0, "n": n})
    bench.server.settle(database)
    with (
        snapshot(bench.server.of(database), held),
        working(bench.server, database, peer) as workers,
    ):
        workers.wait(n)
        wait_finished(bench.server, database, peer, n)
        records = workers.records()
    check_once(records, n)
    fifth, skip = n // 5, n // 100
    first = rate(records[skip:fifth])
    last = rate(records[-fifth:])
    return {"rate": rate(records[skip:]), "first": first, "last": last, "ratio": last / first}


def rate(records: list[tuple[int, int]]) -> float:
    return (len(records) - 1) / (records[-1][0] - records[0][0]) * 1e9


@contextmanager
def snapshot(url: str, held: bool) -> Iterator[None]:
    with psycopg.connect(url) as holder:
        if held:
            holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            holder.execute("SELECT txid_current(), (SELECT count(*) FROM pg_class)")
        yield
        holder.rollback()
