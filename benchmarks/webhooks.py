"""Webhooks a second through gunicorn, started as the demo starts it: 2 processes of 4 threads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.bench import OURS, Bench, Result, cell, table
from benchmarks.machine import group_seconds
from benchmarks.webhook_load import SECRET, WARM_UP
from benchmarks.workers import HERE, Wrong, environment

CONNECTIONS = (1, 8, 32)
GUNICORN = ["opsconsole.wsgi", "--workers", "2", "--worker-class", "gthread", "--threads", "4"]


def tables(bench: Bench) -> list[str]:
    n = bench.n(4000)
    rows = []
    for connections in CONNECTIONS:
        results = [
            bench.measure(f"webhooks, {connections}", lambda: deliver(bench, connections, n))  # noqa: B023
            for _ in range(bench.reps)
        ]
        samples = [result for result in results if result]
        keys = ("rate", "p50", "p99", "web_us", "server_us")
        rows.append([str(connections), *(cell(samples, key) for key in keys)])
    head = ["connections", "deliveries/s", "p50, ms", "p99, ms"]
    head += ["gunicorn µs a delivery", "server µs a delivery"]
    return [table(f"Webhooks: {n:,} payments, each with its fulfilment task", head, rows)]


def deliver(bench: Bench, connections: int, n: int) -> Result:
    database = bench.database(OURS)
    bench.server.settle(database)
    with serving(bench, database) as (port, group):
        before = group_seconds([group]), bench.server_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.webhook_load", str(port), str(connections), str(n)],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Wrong(f"a delivery was not accepted: {done.stderr[-1500:]}")
        after = group_seconds([group]), bench.server_seconds()
    sent = n + WARM_UP
    for count in ("transactions WHERE status = 'paid'", "tasks", "webhook_deliveries"):
        if (found := bench.server.execute(database, f"SELECT count(*) FROM {count}")) != sent:
            raise Wrong(f"{found} of {sent} in {count}")
    web, server = ((a - b) * 1e6 / sent for a, b in zip(after, before, strict=True))
    result: Result = json.loads(done.stdout)
    return result | {"web_us": web, "server_us": server}


@contextmanager
def serving(bench: Bench, database: str) -> Iterator[tuple[int, int]]:
    """Run gunicorn; its port and its process group."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environ = environment(bench.server, database, str(bench.server.home))
    environ |= {"RAZORPAY_WEBHOOK_SECRETS": SECRET.decode(), "LOG_LEVEL": "ERROR"}
    log = Path(bench.server.home, "gunicorn")
    command = [sys.executable, "-m", "gunicorn", *GUNICORN, "--bind", f"127.0.0.1:{port}"]
    command += ["--log-level", "warning", "--no-control-socket"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environ,
            cwd=HERE.parent,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Wrong(f"gunicorn did not start: {log.read_text()[-1500:]}")
            time.sleep(0.05)
        yield port, process.pid
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
