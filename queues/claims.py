"""The life of a claimed task: every verb of a worker, each one SQL function wrapped once.

A claimed task is known by its id and its lease. Every report shows both; a report whose lease is no
longer the task's changes nothing and is answered "stale".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import DatabaseError
from psycopg.errors import ObjectNotInPrerequisiteState

from queues.claimed import (
    ClaimedTask,
    Completed,
    Failed,
    Failure,
    Outcome,
    Pulse,
    Success,
    columns,
)
from queues.clean import dumps, storable_json, storable_text
from queues.database import query, through_conflicts
from queues.default_timeouts import DefaultTimeouts

__all__ = [
    "ClaimedTask",
    "Completed",
    "DefaultTimeouts",
    "Failed",
    "Failure",
    "Outcome",
    "Pulse",
    "Success",
    "query",
    "through_conflicts",
]

LONGEST_MESSAGE, LONGEST_TRACEBACK = 4_000, 16_000


class WorkerGone(Exception):
    """This worker was declared gone: its tasks are with others. Register again under a new id."""


def register_worker(
    worker: str,
    *,
    queues: Sequence[str] | None,
    concurrency: int,
    host: str,
    pid: int,
    version: str,
    metadata: dict[str, Any],
) -> None:
    """Announce one start of a worker process. `worker` must be new for every start."""
    query(
        "SELECT register_worker(%s, %s, %s, %s, %s, %s, %s::jsonb)",
        [worker, queues and list(queues), concurrency, host, pid, version, dumps(metadata)],
    )


def unregister_worker(worker: str) -> list[UUID]:
    """The last word of a worker that stops: what it still holds goes back, attempts uncharged."""
    return [id for (id,) in query("SELECT * FROM unregister_worker(%s)", [worker])]


def claim_tasks(
    worker: str,
    queues: Sequence[str] | None,
    limit: int,
    timeouts: DefaultTimeouts | None = None,
) -> list[ClaimedTask]:
    """Claim up to `limit` due tasks, trying `queues` in order (None: all).

    `timeouts`: those of tasks that bring none. Raises WorkerGone when this worker was declared gone.
    """
    timeouts = timeouts or DefaultTimeouts()
    try:
        rows = query(
            "SELECT id::text, lease, queue, type, payload::text, attempts, max_attempts,"
            """ lost > 1 OR lost = 1 AND errors @> '[{"class": "WorkerDied"}]',"""
            " coalesce(date_part('epoch', timeout), (%s::jsonb -> queue)::float8),"
            " tenant_id, correlation_id"
            " FROM claim_tasks(%s, %s, %s)",
            [timeouts.text(), worker, queues and list(queues), limit],
        )
    except DatabaseError as error:
        if isinstance(error.__cause__, ObjectNotInPrerequisiteState):
            raise WorkerGone(worker) from error
        raise
    tasks = list(map(ClaimedTask._make, rows))
    if any(task.timeout_seconds is None for task in tasks):
        tasks = [timeouts.complete(t) if t.timeout_seconds is None else t for t in tasks]
    return tasks


def limits_wait(queues: Sequence[str] | None) -> tuple[bool, float | None]:
    """Whether due tasks wait only for a limit, and the seconds until a rate limit's next token."""
    rows = query("SELECT next_token FROM limits_wait(%s)", [queues and list(queues)])
    return bool(rows), rows[0][0] if rows else None


def rescue_lost(silence: timedelta) -> list[tuple[UUID, str, str]]:
    """Take back tasks whose worker fell silent or whose timeout passed: (id, new status, reason)."""
    return [
        (id, status, reason)
        for id, status, reason in query("SELECT * FROM rescue_lost(%s)", [silence])
    ]


def promote_due() -> int:
    """Make scheduled tasks whose time has come pending; how many."""
    [(count,)] = query("SELECT promote_due()", [])
    return int(count)


def worker_idle(worker: str) -> None:
    """Ask to be notified. Claim once more after this, then wait."""
    query("SELECT worker_idle(%s)", [worker])


def worker_busy(worker: str) -> None:
    """Ask not to be notified until the next worker_idle()."""
    query("SELECT worker_busy(%s)", [worker])


def heartbeat(worker: str, held: Sequence[tuple[str, int, float | None]]) -> Pulse:
    """Say that the worker lives and all that it holds: (id, lease, seconds since its handler began).

    The seconds are None for a task that still waits in the worker's buffer. What the database has
    under this worker's name besides goes back to its queue.
    """
    ids, leases, elapsed = columns(held, 3)
    [(status, lost, lost_leases)] = query(
        "SELECT status, lost::text[], lost_leases"
        " FROM heartbeat(%s, %s::uuid[], %s::bigint[], %s::float8[], true)",
        [worker, ids, leases, elapsed],
    )
    return Pulse(status, set(zip(lost, lost_leases, strict=True)))


def complete_tasks(successes: Sequence[Success]) -> dict[UUID, Outcome]:
    """Record successes. A stale one was another's by then: its outcome was thrown away."""
    done = [
        Completed(
            str(s.id),
            s.lease,
            None if s.result is None else _storable(s.result),
            s.output_location and storable_text(s.output_location),
        )
        for s in successes
    ]
    troubles = record_completed(done)
    return {s.id: troubles.get(str(s.id), "recorded") for s in successes}


def record_completed(done: Sequence[Completed]) -> dict[str, Outcome]:
    """complete_tasks for a worker's many: only what was not recorded is answered, by id as text."""
    keys, leases, results, outputs = columns(done, 4)
    rows = query(
        "SELECT id::text, outcome FROM complete_tasks"
        "(%s::uuid[], %s::bigint[], %s::jsonb[], %s::text[], true)",
        [
            keys,
            leases,
            results if any(result is not None for result in results) else None,
            outputs if any(outputs) else None,
        ],
    )
    return dict(rows)


def fail_tasks(failures: Sequence[Failure]) -> dict[UUID, Failed]:
    """Record failed attempts: scheduled again after a backoff, or failed for good."""
    ids, leases, errors, delays, finals, backoffs = columns(
        [(f.id, f.lease, _error(f), f.delay, f.final, f.backoff) for f in failures], 6
    )
    rows = query(
        "SELECT * FROM fail_tasks"
        "(%s::uuid[], %s::bigint[], %s::jsonb[], %s::interval[], %s::boolean[], %s::interval[])",
        [ids, leases, errors, delays, finals, backoffs],
    )
    return {row[0]: Failed(*row[1:]) for row in rows}


def release_tasks(
    held: Sequence[tuple[UUID | str, int]],
    *,
    delay: timedelta = timedelta(0),
    reason: str | None = None,
) -> dict[UUID, Outcome]:
    """Give tasks back unfinished, their attempt uncharged, to run again after `delay`."""
    ids, leases = columns(held, 2)
    return dict(
        query(
            "SELECT * FROM release_tasks(%s::uuid[], %s::bigint[], %s, %s)",
            [ids, leases, delay, reason and storable_text(reason)],
        )
    )


def report_progress(id: UUID | str, lease: int, percent: int, note: str | None = None) -> Outcome:
    """Show how far a task has come. "stale": it is no longer yours, stop."""
    rows = query(
        "SELECT report_progress(%s, %s, %s, %s)",
        [id, lease, percent, note and storable_text(note)],
    )
    outcome: Outcome = rows[0][0]
    return outcome


def _storable(value: Any) -> str:
    return dumps(storable_json(value))


def _error(failure: Failure) -> str:
    return _storable(
        {
            "class": failure.error_class,
            "module": failure.error_module,
            "message": failure.message[:LONGEST_MESSAGE],
            "traceback": failure.traceback[-LONGEST_TRACEBACK:],
            "fingerprint": failure.fingerprint,
            "lost": failure.lost,
        }
    )
