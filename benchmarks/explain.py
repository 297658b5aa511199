"""python -m benchmarks.explain [--rows 1000000] [VERB ...]: plans of the hot queries in a full table.

Fills a database of its own with as many finished, pending, scheduled and blocked rows as --rows says,
calls each verb as a worker would that has been at it for a while, and prints EXPLAIN (ANALYZE, BUFFERS)
of every statement inside, by auto_explain. Needs a superuser where DATABASE_URL names a server.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg

from benchmarks import depth
from benchmarks.bench import OURS, Bench
from benchmarks.server import Server
from benchmarks.workers import environment

WORKER = "explained"
BATCH = 100
WARM_UP = 6  # After five calls a session may keep one plan for all values.
SILENCE = timedelta(seconds=30)
SETTINGS = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_buffers = on",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_level = notice",
    "SET auto_explain.log_min_duration = 0",
)


class Verbs:
    """Each hot verb once; the order matters: what one claims the next finishes."""

    def __init__(self) -> None:
        from queues import claims, enqueue

        self.claims, self.enqueueing = claims, enqueue
        self.held: list[Any] = []
        claims.register_worker(
            WORKER,
            queues=["default"],
            concurrency=1,
            host="localhost",
            pid=os.getpid(),
            version="",
            metadata={},
        )

    def enqueue(self) -> None:
        self.enqueueing.enqueue("noop", {"seq": 1})

    def enqueue_many(self) -> None:
        new = self.enqueueing.NewTask
        self.enqueueing.enqueue_many(new(type="noop", payload={"seq": n}) for n in range(BATCH))

    def claim(self) -> None:
        self.held = self.claims.claim_tasks(WORKER, ["default"], BATCH)

    def heartbeat(self) -> None:
        self.claims.heartbeat(WORKER, [(task.id, task.lease, 0.0) for task in self.held])

    def complete(self) -> None:
        done = self.held[: BATCH // 2]
        self.claims.complete_tasks([self.claims.Success(task.id, task.lease) for task in done])

    def fail(self) -> None:
        failed = self.held[BATCH // 2 :]
        self.claims.fail_tasks(
            [self.claims.Failure(task.id, task.lease, "Error", "broken") for task in failed]
        )

    def promote(self) -> None:
        self.claims.promote_due()

    def rescue(self) -> None:
        self.claims.rescue_lost(SILENCE)

    def archive(self) -> None:
        self.claims.query("SELECT archive_finished()", [])


NAMES = [name for name in vars(Verbs) if not name.startswith("_")]


@contextmanager
def explained(plans: list[str]) -> Iterator[None]:
    """Collect the plans of all that runs on Django's connection meanwhile."""
    from django.db import connection

    def collect(notice: psycopg.errors.Diagnostic) -> None:
        if (notice.message_primary or "").startswith("duration:"):
            plans.append(notice.message_primary)

    connection.ensure_connection()
    connection.connection.add_notice_handler(collect)
    try:
        yield
    finally:
        connection.connection.remove_notice_handler(collect)


def report(name: str, verb: Callable[[], None]) -> str:
    """The verb's statements as Markdown, those of the same text once with their number."""
    plans: list[str] = []
    with explained(plans):
        verb()
    shown: dict[str, list[str]] = {}
    for plan in plans:
        query = re.split(r"\nQuery Parameters:|\n[^\n]*\(cost=", plan.partition("\n")[2])[0]
        shown.setdefault(" ".join(query.split()), []).append(plan)
    parts = [f"## {name}"]
    for same in shown.values():
        times = f"\n\n{len(same)} times; the first is shown." if len(same) > 1 else ""
        parts.append(f"```\n{same[0].strip()}\n```{times}")
    return "\n\n".join(parts)


def fill(bench: Bench, rows: int) -> str:
    database = bench.database(OURS, "explain")
    for backlog in depth.BACKLOGS:
        if "archive" not in backlog.title:
            bench.log(f"  filling {rows:,} {backlog.title}")
            depth.fill(bench, backlog._replace(rows=rows), database)
    return database


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain")
    parser.add_argument("verbs", nargs="*", metavar="VERB", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    if unknown := [verb for verb in given.verbs if verb not in NAMES]:
        parser.error(f"there is no verb {unknown[0]!r}; verbs: {', '.join(NAMES)}")
    with Server.start() as server:
        database = fill(Bench(server, 1.0, 1), given.rows)
        os.environ.update(environment(server, database, str(server.home)))
        os.environ["DATABASE_URL"] = server.of(database, superuser=True)
        sys.path.append(os.path.dirname(__file__))
        import django
        from django.db import connection

        django.setup()
        verbs = Verbs()
        with connection.cursor() as cursor:
            for _ in range(WARM_UP):
                for name in NAMES:
                    getattr(verbs, name)()
            for setting in SETTINGS:
                cursor.execute(setting)
        for name in NAMES:
            # Those not asked for run, too: the others need what they leave.
            text = report(name, getattr(verbs, name))
            if not given.verbs or name in given.verbs:
                print(f"{text}\n", flush=True)
        connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
