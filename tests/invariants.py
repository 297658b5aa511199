"""What must be true of all rows at any moment, and of each row from one verb to the next."""

from typing import NamedTuple

from django.db import connection

# Each gives the ids of rows that break the rule.
RULES = {
    "its columns agree with its status": """
        SELECT id FROM tasks WHERE NOT CASE status
            WHEN 'pending' THEN worker_id IS NULL AND completed_at IS NULL AND run_at <= clock_timestamp()
            WHEN 'scheduled' THEN worker_id IS NULL AND completed_at IS NULL
            WHEN 'blocked' THEN worker_id IS NULL AND completed_at IS NULL AND waits_on > 0
            WHEN 'processing' THEN completed_at IS NULL AND started_at IS NOT NULL AND lease > 0 AND worker_id IS NOT NULL
            ELSE completed_at IS NOT NULL END""",
    "attempts are charged by claims": "SELECT id FROM tasks WHERE attempts < 0 OR attempts > lease",
    "a blocked task waits on as many as its open edges, any other on none": """
        SELECT t.id FROM tasks t WHERE t.waits_on <> CASE WHEN t.status = 'blocked' THEN (
            SELECT count(*) FROM task_dependencies d WHERE d.task_id = t.id AND d.outcome IS NULL) ELSE 0 END""",
    "an open edge leads from a live predecessor": """
        SELECT d.task_id FROM task_dependencies d LEFT JOIN tasks p ON p.id = d.predecessor_id
         WHERE d.outcome IS NULL AND coalesce(p.status, '') NOT IN ('blocked', 'scheduled', 'pending', 'processing')""",
    "a task that ran had each predecessor completed, or may run without": """
        SELECT t.id FROM tasks t JOIN task_dependencies d ON d.task_id = t.id AND d.on_failure = 'cancel'
          JOIN all_tasks p ON p.id = d.predecessor_id
         WHERE t.status IN ('scheduled', 'pending', 'processing', 'completed') AND p.status <> 'completed'""",
    "of the tasks with one dedupe key one is live": """
        SELECT min(id::text)::uuid FROM tasks WHERE dedupe_key IS NOT NULL AND status IN ('blocked', 'scheduled', 'pending', 'processing')
         GROUP BY coalesce(tenant_id, ''), type, dedupe_key HAVING count(*) > 1""",
    "a task is in one table": "SELECT id FROM all_tasks GROUP BY id HAVING count(*) > 1",
    "what waits in a fair queue has its round, elsewhere none": """
        SELECT t.id FROM tasks t JOIN queues q ON q.name = t.queue
         WHERE t.status = 'pending' AND q.fair <> (t.round > 0)""",
}
BROKEN = " UNION ALL ".join(
    f"SELECT '{rule}', id FROM ({sql}) r(id)" for rule, sql in RULES.items()
)
ROWS = """
SELECT id, archived, status, queue, coalesce(tenant_id, ''), lease, attempts, lost, jsonb_array_length(errors)
  FROM all_tasks"""
LIVE = ("blocked", "scheduled", "pending", "processing")
WAITING = ("blocked", "scheduled", "pending")
NEXT = {
    None: ("blocked", "scheduled", "pending", "cancelled"),
    "blocked": ("scheduled", "pending", "cancelled"),
    "scheduled": ("pending", "processing", "cancelled"),
    "pending": ("processing", "cancelled"),
    "processing": ("scheduled", "pending", "completed", "failed", "cancelled"),
    "failed": ("pending", "blocked"),
    "cancelled": ("pending", "blocked"),
    "completed": (),
}


class Row(NamedTuple):
    archived: bool
    status: str
    queue: str
    tenant: str
    lease: int
    attempts: int
    lost: int
    errors: int


def execute(sql, *params):
    """Run SQL on the test's connection; its plan is kept."""
    return connection.connection.execute(sql, params, prepare=True).fetchall()


def rows():
    return {row[0]: Row(*row[1:]) for row in execute(ROWS)}


def broken_rules():
    return [rule for rule, _ in execute(BROKEN)]


def check_step(before, after):
    """One verb changed each task by one legal move, its lease and attempts as that move has it."""
    assert before.keys() <= after.keys()
    for id, now in after.items():
        was = before.get(id)
        if was is None or now.status != was.status:
            assert now.status in NEXT[was and was.status], (was, now)
        if was is None:
            assert (now.lease, now.attempts, now.lost, now.errors) == (0, 0, 0, 0)
            continue
        claimed = now.status == "processing" and was.status != "processing"
        assert now.lease == was.lease + claimed, (was, now)
        assert now.errors >= was.errors
        if claimed:
            assert now.attempts == was.attempts + 1
        elif was.status in ("failed", "cancelled") and now.status in LIVE:
            assert (now.attempts, now.lost) == (0, 0)
        elif was.status == "processing" and now.status in WAITING:
            assert was.attempts - 1 <= now.attempts <= was.attempts
        else:
            assert now.attempts == was.attempts, (was, now)
