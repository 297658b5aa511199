"""What the rows say after a storm: figures, and every rule that they break."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import psycopg

# Each gives rows that must not exist.
RULES = {
    "a task is still live": """
        SELECT id, status FROM tasks WHERE status NOT IN ('completed', 'failed', 'cancelled')""",
    "a row breaks the rules of its status": """
        SELECT id, status, task_fault(t) FROM tasks t WHERE task_fault(t) IS NOT NULL""",
    "a claim is missing in the log, or a lease jumped": """
        SELECT t.id, t.lease, count(c.lease) FROM tasks t LEFT JOIN storm_claims c ON c.task_id = t.id
         GROUP BY t.id HAVING t.lease <> count(c.lease) OR t.lease <> coalesce(max(c.lease), 0)""",
    "a later lease began before the one before it had ended": """
        SELECT a.task_id, a.lease, a.ended, b.started FROM storm_claims a
          JOIN storm_claims b ON b.task_id = a.task_id AND b.lease = a.lease + 1
         WHERE a.ended IS NULL OR b.started < a.ended""",
    "a claim never ended": "SELECT task_id, lease FROM storm_claims WHERE ended IS NULL",
    "a task has not exactly one completion, or a completion it should not have": """
        SELECT t.id, t.status FROM tasks t LEFT JOIN storm_claims c ON c.task_id = t.id AND c.ending = 'complete'
         GROUP BY t.id HAVING count(c.lease) <> (t.status = 'completed')::integer
             OR (t.status = 'completed' AND max(c.lease) <> t.lease)""",
    "an effect is missing, doubled, or without its completion": """
        SELECT t.id, t.status, count(e.lease) FROM tasks t LEFT JOIN storm_effects e ON e.task_id = t.id
         GROUP BY t.id HAVING count(e.lease) <> (t.status = 'completed')::integer""",
    "a completion was recorded for a lease that was told stale": """
        SELECT task_id, lease FROM storm_claims WHERE stale > 0 AND ending = 'complete'""",
    "attempts exceed the claims": "SELECT id FROM tasks WHERE attempts > lease OR attempts < 0",
    "an edge is still open": "SELECT task_id FROM task_dependencies WHERE outcome IS NULL",
    "a task was completed although its predecessor was not": """
        SELECT t.id, p.id, p.status FROM tasks t JOIN task_dependencies d ON d.task_id = t.id AND d.on_failure = 'cancel'
          JOIN tasks p ON p.id = d.predecessor_id
         WHERE t.status = 'completed' AND (p.status <> 'completed' OR p.completed_at > t.started_at)""",
    "an error was raised": "SELECT DISTINCT message FROM storm_errors",
    "two sessions deadlocked": """
        SELECT deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0""",
    "a claim that began after the pause had committed took a task": """
        SELECT c.task_id, c.begun, p.committed FROM storm_claims c
          JOIN storm_changes p ON p.queue = c.queue AND p.what = 'pause' AND c.begun > p.committed
         WHERE c.started < coalesce((SELECT min(r.at) FROM storm_changes r
                  WHERE r.queue = p.queue AND r.what = 'resume' AND r.at > p.at), 'infinity')""",
    "a queue with limits gave a task between its pause and its resume": """
        SELECT c.task_id, c.started, p.at FROM storm_claims c
          JOIN storm_changes p ON p.queue = c.queue AND p.what = 'pause' AND c.started > p.at AND c.queue <> 'plain'
         WHERE c.started < coalesce((SELECT min(r.at) FROM storm_changes r
                  WHERE r.queue = p.queue AND r.what = 'resume' AND r.at > p.at), 'infinity')""",
}
COUNTS = """
SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM storm_claims),
       (SELECT count(*) FROM storm_claims WHERE ending = 'rescued'), (SELECT sum(stale) FROM storm_claims),
       (SELECT count(*) FROM storm_changes), (SELECT count(*) FROM task_dependencies)"""
CLAIMS = "SELECT begun, started, ended FROM storm_claims WHERE queue = %s ORDER BY started"


def judge(db: psycopg.Connection[Any]) -> tuple[list[str], list[str]]:
    """Lines that say what the rows hold, and lines that say what is wrong."""
    lines = [
        "{:,} tasks, {:,} claims, {:,} rescued, {:,} late reports refused, {:,} changes of rules, "
        "{:,} dependencies".format(*(n or 0 for n in db.execute(COUNTS).fetchone() or ()))
    ]
    by_status = db.execute("SELECT status, count(*) FROM tasks GROUP BY 1 ORDER BY 1").fetchall()
    lines.append("outcomes: " + ", ".join(f"{count:,} {status}" for status, count in by_status))
    wrong = []
    for rule, query in RULES.items():
        if broken := db.execute(query).fetchall():
            wrong.append(f"{rule}: {len(broken)} times, such as {broken[0]}")
    queues = db.execute(
        "SELECT name, max_per_tenant, rate_limit, burst FROM queues WHERE name IN (SELECT queue FROM storm_claims)"
        " ORDER BY name"
    ).fetchall()
    for name, per_tenant, rate, burst in queues:
        claims = db.execute(CLAIMS, [name]).fetchall()
        most, over = _caps(db, name, claims)
        wrong += over
        facts = [f"{len(claims):,} claims", f"at most {most} running"]
        if per_tenant:
            tenant_most = _most_of_a_tenant(db, name)
            facts.append(f"at most {tenant_most} of a tenant (cap {per_tenant})")
            if tenant_most > per_tenant:
                wrong.append(f"{name}: a tenant had {tenant_most} running, cap {per_tenant}")
        if rate:
            fullest = fullest_window(claims, rate)
            facts.append(f"fullest window {fullest:.1f} above {rate:g}/s (burst {burst})")
            if fullest > burst + 1e-6:
                wrong.append(f"{name}: {fullest:.1f} claims above the rate, burst {burst}")
        lines.append(f"queue {name}: " + ", ".join(facts))
    return lines, wrong


def _caps(db: psycopg.Connection[Any], queue: str, claims: list[Any]) -> tuple[int, list[str]]:
    """The most that ran at once, and each claim that began although the cap was reached.

    A change of the cap locks the queue's row as a limited claim does, so that either was first.
    """
    changes = db.execute(
        "SELECT at, value FROM storm_changes WHERE queue = %s AND what = 'cap' ORDER BY at", [queue]
    ).fetchall()
    moments = [at for at, _ in changes]
    over = []
    most = 0
    for at, running in running_at_starts((started, ended) for _, started, ended in claims):
        most = max(most, running)
        place = bisect_right(moments, at)
        cap = changes[place - 1][1] if place else None
        if cap is not None and running > cap:
            over.append(f"{queue}: {running} running at {at}, cap {cap}")
    return most, over[:3]


def _most_of_a_tenant(db: psycopg.Connection[Any], queue: str) -> int:
    by_tenant = defaultdict(list)
    for tenant, started, ended in db.execute(
        "SELECT tenant, started, ended FROM storm_claims WHERE queue = %s", [queue]
    ):
        by_tenant[tenant].append((started, ended))
    return max(running for spans in by_tenant.values() for _, running in running_at_starts(spans))


def running_at_starts(
    spans: Iterable[tuple[datetime, datetime | None]],
) -> list[tuple[datetime, int]]:
    """At each start: how many ran, itself included."""
    moments = []
    for started, ended in spans:
        moments.append((started, 1))
        if ended is not None:
            moments.append((ended, -1))
    seen, running = [], 0
    for at, change in sorted(moments):
        running += change
        if change > 0:
            seen.append((at, running))
    return seen


def fullest_window(claims: list[Any], rate: float) -> float:
    """How many claims of one window of time, at most, were above its length times the rate.

    A claim takes its tokens between its call's begin and its task's start, and claims of a queue
    with a rate take them one after the other, in the order of the starts.
    """
    fullest, lowest = 0.0, float("inf")
    for number, (begun, started, _) in enumerate(claims):
        lowest = min(lowest, number - rate * begun.timestamp())
        fullest = max(fullest, number + 1 - rate * started.timestamp() - lowest)
    return fullest
