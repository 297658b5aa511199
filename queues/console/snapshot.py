"""What the overview shows: one picture of the queues, made once and shared by all open tabs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection

from queues.console.formats import duration
from queues.models import Task

CAP = 10_000
FRESH_SECONDS = 2
RUNNING_SHOWN = 8

QUEUES = f"""
WITH counted AS MATERIALIZED (
    SELECT s.queue, 'scheduled' AS state, count(*) AS n
      FROM (SELECT queue FROM tasks WHERE status = 'scheduled' ORDER BY run_at, id LIMIT {CAP} + 1) s GROUP BY s.queue
    UNION ALL
    SELECT b.queue, 'blocked', count(*)
      FROM (SELECT queue FROM tasks WHERE status = 'blocked' ORDER BY id LIMIT {CAP} + 1) b GROUP BY b.queue
    UNION ALL
    SELECT p.queue, 'processing', count(*) FROM tasks p WHERE p.status = 'processing' GROUP BY p.queue
    UNION ALL
    SELECT f.queue, 'failed', count(*)
      FROM (SELECT queue FROM tasks WHERE status = 'failed' AND completed_at > now() - interval '1 day'
             LIMIT {CAP} + 1) f GROUP BY f.queue
    UNION ALL
    SELECT d.queue, 'done', count(*)
      FROM (SELECT queue FROM tasks WHERE status = 'completed' AND completed_at > now() - interval '1 minute'
             LIMIT {CAP} * 2 + 1) d GROUP BY d.queue
)
SELECT q.name, q.max_concurrent,
       q.paused AND (q.paused_until IS NULL OR q.paused_until > clock_timestamp()), q.paused_reason, q.paused_by, q.paused_at, q.paused_until,
       (SELECT count(*) FROM (SELECT FROM tasks t WHERE t.queue = q.name AND t.status = 'pending' LIMIT {CAP} + 1) x),
       extract(epoch FROM clock_timestamp() -
           (SELECT min(t.run_at) FROM (SELECT t.run_at FROM tasks t WHERE t.queue = q.name AND t.status = 'pending'
                                        ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id LIMIT {CAP}) t))::float8,
       EXISTS (SELECT FROM workers w WHERE w.status = 'alive'
                AND (w.heartbeat_at > clock_timestamp() - %(silence)s
                     OR w.heartbeat_at IS NULL AND w.last_seen_at > clock_timestamp() - interval '5 minutes')
                AND (w.queues IS NULL AND w.kind = 'process' OR q.name = ANY (w.queues)
                     OR w.kind = 'ephemeral' AND EXISTS (SELECT FROM tasks t WHERE t.worker_id = w.id AND t.queue = q.name AND t.status = 'processing'))),
       (SELECT jsonb_object_agg(c.state, c.n) FROM counted c WHERE c.queue = q.name)
  FROM queues q ORDER BY q.name
"""  # noqa: S608


@dataclass(frozen=True)
class QueueRow:
    """One queue at a glance. Counts above CAP are shown as "10,000+"; lag is in seconds."""

    name: str
    max_concurrent: int | None
    paused: bool
    paused_reason: str
    paused_by: str
    paused_at: datetime | None
    paused_until: datetime | None
    pending: int
    lag: float | None
    has_worker: bool
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def processing(self) -> int:
        return self.counts.get("processing", 0)

    @property
    def scheduled(self) -> int:
        return self.counts.get("scheduled", 0)

    @property
    def blocked(self) -> int:
        return self.counts.get("blocked", 0)

    @property
    def failed(self) -> int:
        return self.counts.get("failed", 0)

    @property
    def done(self) -> int:
        return self.counts.get("done", 0)

    @property
    def time_to_drain(self) -> str:
        """At the last minute's pace. More than is counted takes more than is said."""
        if self.paused or not self.pending or not self.done:
            return duration(None)
        return ("> " if self.pending > CAP else "") + duration(60 * self.pending / self.done)


@dataclass(frozen=True)
class Snapshot:
    """Taken at `at`; `took` is the seconds it cost the database."""

    at: datetime
    took: float
    queues: list[QueueRow]
    stuck: int
    workers_alive: int
    last_sweep: datetime | None
    no_handler: list[tuple[str, int]]
    failures: list[tuple[str, int]]
    running: list[Task]

    def total(self, name: str) -> int:
        return sum(getattr(row, name) for row in self.queues)

    @property
    def totals(self) -> dict[str, int]:
        names = ("pending", "processing", "scheduled", "blocked", "failed", "done")
        return {name: self.total(name) for name in names}

    @property
    def lag(self) -> float | None:
        return max((row.lag for row in self.queues if row.lag is not None), default=None)


def snapshot() -> Snapshot:
    """The current picture, at most FRESH_SECONDS old."""
    made: Snapshot | None = cache.get("queue.snapshot")
    if made is None:
        made = take_snapshot()
        # One that was slow to make is kept longer, so that watching never becomes the load.
        cache.set("queue.snapshot", made, max(FRESH_SECONDS, made.took * 20))
    return made


def take_snapshot() -> Snapshot:
    began = time.monotonic()
    queues = [_queue_row(*row) for row in _rows(QUEUES)]
    [(at, stuck, alive, swept)] = _rows(
        """SELECT clock_timestamp(),
           (SELECT count(*) FROM tasks t JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
             WHERE t.status = 'processing' AND stuck_reason(w.status, w.heartbeat_at, t.started_at,
                   coalesce(t.timeout, q.default_timeout), %(silence)s) IS NOT NULL),
           (SELECT count(*) FROM workers WHERE status <> 'gone' AND heartbeat_at > clock_timestamp() - %(silence)s),
           (SELECT max(swept_at) FROM workers)"""
    )
    no_handler = _rows(
        """SELECT s.type, count(*) FROM (SELECT type, error FROM tasks WHERE status = 'scheduled' ORDER BY run_at, id LIMIT 10001) s
            WHERE s.error LIKE 'No handler for the type%%' GROUP BY s.type ORDER BY 2 DESC, 1 LIMIT 5"""
    )
    failures = _rows(
        """SELECT coalesce(f.error_fingerprint, f.error, 'unknown'), count(*)
             FROM (SELECT error_fingerprint, error FROM tasks
                    WHERE status = 'failed' AND completed_at > now() - interval '1 day' LIMIT 10001) f
            GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5"""
    )
    running = list(
        Task.objects.filter(status="processing")
        .only("type", "queue_id", "started_at", "progress", "progress_note", "worker_id")
        .order_by("started_at", "id")[:RUNNING_SHOWN]
    )
    return Snapshot(
        at, time.monotonic() - began, queues, stuck, alive, swept, no_handler, failures, running
    )


def _rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        parameters: dict[str, Any] = {"silence": settings.QUEUE_SILENCE}
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _queue_row(*facts: Any) -> QueueRow:
    """The last column is jsonb, which comes as text."""
    names = [field.name for field in fields(QueueRow)]
    values = dict(zip(names, facts, strict=True))
    return QueueRow(**values | {"counts": json.loads(values["counts"] or "{}")})
