"""A process that enqueues: agent.py floor|ours VERB [ARGUMENTS]; prints one line of JSON.

setup | one N | bulk N | load KIND N (of Ours.enqueue_KIND) | paced N FILE
"""

from __future__ import annotations

import json
import random
import struct
import sys
import time
from typing import Any

from benchmarks.floor import Floor
from benchmarks.ours import Ours

WARM_UP = 20


def payload(seq: int) -> dict[str, Any]:
    """About 100 bytes of JSON."""
    return {"seq": seq, "pad": "x" * 72}


def one(peer: Any, n: int) -> float:
    for seq in range(-WARM_UP, 0):
        peer.enqueue_one(payload(seq))
    jobs = [payload(seq) for seq in range(n)]
    start = time.monotonic()
    for job in jobs:
        peer.enqueue_one(job)
    return time.monotonic() - start


def many(verb: Any, n: int, warm_up: int) -> float:
    if warm_up:
        verb([payload(seq) for seq in range(-warm_up, 0)])
    jobs = [payload(seq) for seq in range(n)]
    start = time.monotonic()
    verb(jobs)
    return time.monotonic() - start


def paced(peer: Any, n: int, path: str) -> float:
    """One task every 50 to 60 ms; writes when each call returned."""
    pause = random.Random(7)
    start = time.monotonic()
    with open(path, "wb") as out:
        for seq in range(n):
            peer.enqueue_one(payload(seq))
            out.write(struct.pack("<qq", seq, time.monotonic_ns()))
            time.sleep(pause.uniform(0.050, 0.060))
    return time.monotonic() - start


def main() -> None:
    name, verb, *rest = sys.argv[1:]
    peer: Any = {"floor": Floor, "ours": Ours}[name]()
    if verb == "setup":
        peer.setup()
        seconds = 0.0
    else:
        peer.open()
        if verb == "one":
            seconds = one(peer, int(rest[0]))
        elif verb == "paced":
            seconds = paced(peer, int(rest[0]), rest[1])
        elif verb == "bulk":
            seconds = many(peer.enqueue_bulk, int(rest[0]), WARM_UP)
        else:
            seconds = many(getattr(peer, f"enqueue_{rest[0]}"), int(rest[1]), 0)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
