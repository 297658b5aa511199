"""One process of the storm: it enqueues, claims, works, finishes, dies, and acts as an operator.

Each claim leaves a row in storm_claims, written in the claim's own transaction; the row gets its end
in the transaction that ends the claim. So the rows tell what was held when, also by those that were
killed. The log is written after the verb: in the other order it would lock against the others.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import ForeignKeyViolation, ObjectNotInPrerequisiteState, UniqueViolation
from psycopg.types.json import Jsonb

QUEUES = ("plain", "capped", "tenants", "rated", "mixed")
SILENCE = 3.0
HEARTBEAT = 0.7
BATCH = 6

CLAIM = """
WITH c AS MATERIALIZED (SELECT * FROM claim_tasks(%s, %s, %s))
INSERT INTO storm_claims (task_id, lease, queue, tenant, begun, started)
SELECT c.id, c.lease, c.queue, coalesce(c.tenant_id, ''), statement_timestamp(), c.started_at FROM c
RETURNING task_id, lease"""
COMPLETE = "SELECT id, outcome FROM complete_tasks(%s::uuid[], %s::bigint[], %s::jsonb[])"
FAIL = (
    "SELECT id, outcome FROM fail_tasks(%s::uuid[], %s::bigint[], %s::jsonb[], %s::interval[], %s)"
)
RELEASE = "SELECT id, outcome FROM release_tasks(%s::uuid[], %s::bigint[])"
ENDED = """
UPDATE storm_claims SET ended = clock_timestamp(), ending = %s
 WHERE (task_id, lease) IN (SELECT * FROM unnest(%s::uuid[], %s::bigint[])) AND ended IS NULL"""
STALE = """
UPDATE storm_claims SET stale = stale + 1
 WHERE (task_id, lease) IN (SELECT * FROM unnest(%s::uuid[], %s::bigint[]))"""
TAKEN = """
UPDATE storm_claims SET ended = clock_timestamp(), ending = %s
 WHERE task_id = ANY (%s) AND ended IS NULL"""
EFFECT = "INSERT INTO storm_effects SELECT * FROM unnest(%s::uuid[], %s::bigint[])"
ACTS = (
    ("cancelled", "cancel_tasks(%s)", ("pending", "scheduled", "blocked", "processing")),
    ("requeued", "requeue_tasks(%s, NULL, true)", ("scheduled", "processing")),
    ("released by force", "release_held(%s, 'storm')", ("processing",)),
    ("moved", "move_tasks(%s, 'capped')", ("pending", "blocked")),
    ("moved", "move_tasks(%s, 'mixed')", ("pending", "scheduled")),
    ("reprioritised", "set_priority(%s, 7)", ("pending", "blocked")),
    ("retried", "retry_tasks(%s, true)", ("failed", "cancelled")),
    ("retried", "retry_tasks(%s)", ("failed", "cancelled")),
    ("run again", "run_again(%s)", ("completed",)),
)


class Plan(NamedTuple):
    """What every process knows. Moments are of time.monotonic, which all processes share."""

    url: str
    backlog: int
    storm_ends: float


class Process:
    """A worker under one id after the other, on one connection."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.random = random.Random(seed)
        self.db = psycopg.connect(plan.url, autocommit=True)
        self.id = self.beaten = None
        self.made: list[Any] = []

    def run(self) -> None:
        while True:
            try:
                self.step()
            except ObjectNotInPrerequisiteState:
                self.id = None
            except psycopg.Error as error:
                self.db.execute(
                    "INSERT INTO storm_errors VALUES (%s)", [f"{error.sqlstate}: {error}"]
                )

    def step(self) -> None:
        self.beat()
        dice = self.random.random()
        if dice < 0.03:
            self.rescue()
        elif time.monotonic() < self.plan.storm_ends and dice < 0.20:
            self.enqueue()
        elif time.monotonic() < self.plan.storm_ends and dice < 0.24:
            self.act()
        else:
            self.work()

    def beat(self) -> None:
        now = time.monotonic()
        if self.id is None:
            self.id, self.beaten = f"storm-{os.getpid()}-{self.random.random()}", now
            self.db.execute("SELECT register_worker(%s)", [self.id])
        elif now - self.beaten > HEARTBEAT:
            self.beaten = now
            self.db.execute("SELECT heartbeat(%s)", [self.id])

    def rescue(self) -> None:
        with self.db.transaction():
            rows = self.db.execute(
                "SELECT id FROM rescue_lost(make_interval(secs => %s))", [SILENCE]
            )
            self.db.execute(TAKEN, ["rescued", [id for (id,) in rows]])

    def enqueue(self) -> None:
        queue = self.random.choice(QUEUES)
        [(waiting,)] = self.db.execute(
            "SELECT count(*) FROM (SELECT FROM tasks WHERE queue = %s AND status = 'pending' LIMIT %s) t",
            [queue, self.plan.backlog],
        )
        if waiting >= self.plan.backlog:
            return
        tasks = [self.new_task(queue) for _ in range(self.random.randint(1, 12))]
        with suppress(ForeignKeyViolation):  # A predecessor may be archived and dropped: not here.
            rows = self.db.execute("SELECT id FROM enqueue_tasks(%s)", [Jsonb(tasks)])
            self.made = (self.made + [str(id) for (id,) in rows])[-30:]

    def new_task(self, queue: str) -> dict[str, Any]:
        pick = self.random
        task: dict[str, Any] = {"type": "storm", "queue": queue, "priority": pick.choice((0, 0, 5))}
        if tenant := pick.choice(("a", "a", "a", "b", "c", None)):
            task["tenant_id"] = tenant
        if pick.random() < 0.15:
            task["delay"] = pick.random()
        if pick.random() < 0.1:
            task["dedupe_key"] = f"key-{pick.randrange(20)}"
        if self.made and pick.random() < 0.2:
            task["after"] = pick.sample(self.made, min(len(self.made), pick.randint(1, 3)))
            task["on_failure"] = pick.choice(("cancel", "run"))
        return task

    def act(self) -> None:
        name, verb, statuses = self.random.choice(ACTS)
        rows = self.db.execute(
            "SELECT id FROM (SELECT id FROM tasks WHERE status = %s LIMIT 300) t ORDER BY random() LIMIT 4",
            [self.random.choice(statuses)],
        )
        ids = [id for (id,) in rows]
        with suppress(UniqueViolation), self.db.transaction():
            done = self.db.execute(f"SELECT id, outcome, before FROM {verb}", [ids]).fetchall()
            taken = [
                id for id, outcome, before in done if (outcome, before) == ("done", "processing")
            ]
            self.db.execute(TAKEN, [name, taken])

    def work(self) -> None:
        queues = self.random.choice((None, None, self.random.sample(QUEUES, 2)))
        held = self.db.execute(CLAIM, [self.id, queues, self.random.randint(1, BATCH)]).fetchall()
        if not held:
            time.sleep(self.random.random() * 0.03)
            return
        self.die_at(0.01)
        silent = self.random.random() < 0.003
        time.sleep(SILENCE + 1 if silent else self.random.random() * 0.03)
        endings: dict[str, list[Any]] = {}
        for one in held:
            endings.setdefault(
                self.random.choices(("complete", "fail", "final", "release"), (76, 12, 4, 8))[0], []
            ).append(one)
        for ending, some in endings.items():
            self.finish(ending, some)
            self.die_at(0.005)

    def finish(self, ending: str, held: list[Any]) -> None:
        ids, leases = map(list, zip(*held, strict=True))
        with self.db.transaction():
            if ending == "complete":
                outcomes = self.db.execute(COMPLETE, [ids, leases, [Jsonb("done")] * len(ids)])
            elif ending == "release":
                outcomes = self.db.execute(RELEASE, [ids, leases])
            else:
                errors = [Jsonb({"class": "Storm", "message": "m"})] * len(ids)
                final = [ending == "final"] * len(ids)
                outcomes = self.db.execute(FAIL, [ids, leases, errors, ["50 ms"] * len(ids), final])
            said = dict(outcomes.fetchall())
            recorded = [one for one in held if said[one[0]] == "recorded"]
            stale = [one for one in held if said[one[0]] != "recorded"]
            if recorded:
                self.db.execute(ENDED, [ending, *map(list, zip(*recorded, strict=True))])
            if recorded and ending == "complete":
                self.db.execute(EFFECT, list(map(list, zip(*recorded, strict=True))))
            if stale:
                self.db.execute(STALE, list(map(list, zip(*stale, strict=True))))

    def die_at(self, chance: float) -> None:
        if time.monotonic() < self.plan.storm_ends and self.random.random() < chance:
            os.kill(os.getpid(), signal.SIGKILL)
