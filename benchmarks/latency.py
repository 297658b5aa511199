"""Pick-up latency: from the return of the enqueueing call to the start of the handler, idle worker."""

import statistics
import struct
import time
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Result, cell, table
from benchmarks.workers import check_once, wait_finished, working

PERCENTS = (50, 95, 99)


def tables(bench: Bench) -> list[str]:
    n = bench.n(200, least=50)
    floors, ours = bench.beside_floor("latency", lambda peer: latency(bench, peer, n))
    rows = [
        [name, *(cell(samples, f"p{percent}") for percent in PERCENTS)]
        for name, samples in (("floor", floors), ("ours", ours))
    ]
    return [table(f"Pick-up, ms ({n} tasks, 50 to 60 ms apart)", ["", "p50", "p95", "p99"], rows)]


def latency(bench: Bench, peer: Any, n: int) -> Result:
    database = bench.database(peer)
    bench.server.settle(database)
    with working(bench.server, database, peer) as workers:
        time.sleep(3)  # The worker starts, finds nothing and becomes idle.
        sent_file = Path(workers.log, "sent")
        bench.agent(peer, database, "paced", n, sent_file)
        workers.wait(n, 30)
        wait_finished(bench.server, database, peer, n)
        records = workers.records()
        sent = dict(struct.iter_unpack("<qq", sent_file.read_bytes()))
    check_once(records, n)
    waits = [(ns - sent[seq]) / 1e6 for ns, seq in records]
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {f"p{percent}": cuts[percent - 1] for percent in PERCENTS}
