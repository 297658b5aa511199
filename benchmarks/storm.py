"""python -m benchmarks.storm [--seconds 60] [--processes 50]

Many processes enqueue, claim, finish and act as operators while caps change, queues pause and
processes are killed; then the work is drained and the rows are counted. Exit 1: a rule was broken.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.context import ForkProcess
from typing import Any

import psycopg

from benchmarks.ours import MANAGE
from benchmarks.server import Server
from benchmarks.storm_process import SILENCE, Plan, Process
from benchmarks.storm_verdict import judge
from benchmarks.workers import environment

TABLES = """
CREATE TABLE storm_claims (task_id uuid, lease bigint, queue text, tenant text, begun timestamptz,
    started timestamptz, ended timestamptz, ending text, stale integer DEFAULT 0, PRIMARY KEY (task_id, lease));
CREATE TABLE storm_effects (task_id uuid, lease bigint);
CREATE TABLE storm_changes (queue text, what text, value integer, at timestamptz, committed timestamptz);
CREATE TABLE storm_errors (message text);
INSERT INTO queues (name, max_concurrent, max_per_tenant, rate_limit, burst, fair) VALUES
    ('plain', NULL, NULL, NULL, 1, false), ('capped', 3, NULL, NULL, 1, false),
    ('tenants', NULL, 2, NULL, 1, true), ('rated', NULL, NULL, 60, 10, false),
    ('mixed', 8, 3, 80, 15, true);
INSERT INTO storm_changes VALUES ('capped', 'cap', 3, now(), now()), ('mixed', 'cap', 8, now(), now());
ANALYZE"""
LIVE = (
    "SELECT count(*) FROM tasks WHERE status IN ('blocked', 'scheduled', 'pending', 'processing')"
)
HURRY = "SELECT count(*) FROM requeue_tasks(ARRAY(SELECT id FROM tasks WHERE status = 'scheduled'))"
CAPS = itertools.cycle((1, 5, 3))
PAUSED = ("capped", "mixed", "tenants", "plain")
DRAIN_SECONDS = 120


class Storm:
    """The parent: it keeps the processes going, kills some, and changes the queues' rules."""

    def __init__(self, url: str, processes: int, seconds: float) -> None:
        self.db = psycopg.connect(url, autocommit=True)
        self.random = random.Random(1)
        self.seeds = itertools.count(1)
        self.plan = Plan(url, backlog=8 * processes, storm_ends=time.monotonic() + seconds)
        self.kills = 0
        self.children: list[ForkProcess] = []
        for _ in range(processes):
            self.spawn()

    def spawn(self) -> None:
        child = multiprocessing.get_context("fork").Process(
            target=_child, args=(self.plan, next(self.seeds)), daemon=True
        )
        child.start()
        self.children.append(child)

    def rage(self) -> None:
        """Until the storm ends: a turn every 0.2 s kills, replaces, pauses or changes a cap."""
        paused: list[tuple[float, str]] = []
        for turn in itertools.count():
            now = time.monotonic()
            if now >= self.plan.storm_ends:
                break
            if turn % 2:
                self.random.choice(self.children).kill()
            self.replace()
            if turn % 5 == 0:
                self.set_cap("capped", next(CAPS))
            if turn % 4 == 0 and len(paused) < 2:
                queue = self.random.choice([q for q in PAUSED if q not in [p for _, p in paused]])
                paused.append((now + 0.3 + self.random.random(), queue))
                self.turn(queue, "pause", "pause_queue(%s, 'storm', 'storm')")
            for due in [due for due in paused if due[0] < now]:
                paused.remove(due)
                self.turn(due[1], "resume", "resume_queue(%s)")
            time.sleep(0.2)
        for _, queue in paused:
            self.turn(queue, "resume", "resume_queue(%s)")

    def replace(self) -> None:
        for child in [child for child in self.children if not child.is_alive()]:
            child.join()
            self.children.remove(child)
            self.kills += 1
            self.spawn()

    def set_cap(self, queue: str, cap: int) -> None:
        with self.db.transaction():
            self.db.execute("UPDATE queues SET max_concurrent = %s WHERE name = %s", [cap, queue])
            self._note(queue, "cap", cap)

    def turn(self, queue: str, what: str, verb: str) -> None:
        with self.db.transaction():
            self.db.execute(f"SELECT * FROM {verb}", [queue])
            self._note(queue, what, None)
        self.db.execute(
            "UPDATE storm_changes SET committed = clock_timestamp() WHERE committed IS NULL"
        )

    def _note(self, queue: str, what: str, value: int | None) -> None:
        # The verb before this has locked the queue's row: every limited claim was before or comes after.
        self.db.execute(
            "INSERT INTO storm_changes VALUES (%s, %s, %s, clock_timestamp(), NULL)",
            [queue, what, value],
        )

    def drain(self) -> float:
        """Wait until all is done and give the seconds; those killed last have their tasks rescued."""
        began = time.monotonic()
        while time.monotonic() < began + DRAIN_SECONDS:
            self.replace()
            self.db.execute(HURRY)
            [(live,)] = self.db.execute(LIVE).fetchall()
            if not live:
                break
            time.sleep(0.2)
        return time.monotonic() - began

    def end(self) -> None:
        for child in self.children:
            child.kill()
            child.join()


def _child(plan: Plan, seed: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(psycopg.OperationalError):
        Process(plan, seed).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=50)
    given = parser.parse_args()
    with Server.start() as server:
        database = server.create("storm")
        environ: Any = environment(server, database, str(server.home))
        subprocess.run([sys.executable, MANAGE, "migrate", "-v0"], env=environ, check=True)
        server.execute(database, TABLES)
        storm = Storm(server.of(database), given.processes, given.seconds)
        try:
            storm.rage()
            drained = storm.drain()
        finally:
            storm.end()
        print(
            f"PostgreSQL {server.show('server_version')}, fsync {server.show('fsync')}: "
            f"{given.processes} processes, {given.seconds:g} s, {storm.kills} SIGKILLs, silence limit "
            f"{SILENCE:g} s, drained in {drained:.0f} s"
        )
        lines, wrong = judge(storm.db)
        storm.db.close()
    print("\n".join(lines))
    print("\n".join(f"WRONG: {sentence}" for sentence in wrong) or "no violation")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
