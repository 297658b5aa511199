"""python -m benchmarks [--only drain,latency] [--scale 0.1] [--reps 3]"""

import argparse
import sys
import time

from benchmarks import depth, drain, enqueueing, features, latency, memory, pinned, webhooks
from benchmarks.bench import Bench
from benchmarks.machine import describe
from benchmarks.server import Server

GROUPS = {
    "enqueue": enqueueing.tables,
    "drain": drain.tables,
    "latency": latency.tables,
    "pinned": pinned.tables,
    "memory": memory.tables,
    "features": features.tables,
    "depth": depth.tables,
    "webhooks": webhooks.tables,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help=f"of {','.join(GROUPS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of tasks and rows")
    parser.add_argument("--reps", type=int, default=3, help="runs of each measurement")
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name] or list(GROUPS)
    if unknown := sorted(set(names) - set(GROUPS)):
        parser.error(f"there is no group {unknown[0]!r}; groups: {', '.join(GROUPS)}")
    if not 0 < given.scale <= 10 or given.reps < 1:
        parser.error("scale is more than 0 and at most 10; reps is at least 1")
    began = time.monotonic()
    with Server.start() as server:
        bench = Bench(server, given.scale, given.reps)
        print(describe(server), flush=True)
        for name in names:
            bench.log(f"{name} ...")
            for table in GROUPS[name](bench):
                print(f"\n{table}", flush=True)
    print(f"\n{bench.footnote()} {time.monotonic() - began:,.0f} s in all.")
    for sentence in bench.wrong:
        print(f"WRONG: {sentence}")
    return 1 if bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
