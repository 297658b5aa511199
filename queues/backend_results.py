"""Rows of the queue as the TaskResult of Django's Tasks API."""

from __future__ import annotations

import builtins
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

from django.db import connection

from queues.models import Task as TaskRow
from queues.models.shared import TolerantDecoder
from queues.tasks_api import Task, TaskError, TaskResult, TaskResultStatus

P = ParamSpec("P")
R = TypeVar("R")

Status = TaskRow.Status
STATUS = {
    Status.BLOCKED: TaskResultStatus.READY,
    Status.SCHEDULED: TaskResultStatus.READY,
    Status.PENDING: TaskResultStatus.READY,
    Status.PROCESSING: TaskResultStatus.RUNNING,
    Status.COMPLETED: TaskResultStatus.SUCCESSFUL,
    Status.FAILED: TaskResultStatus.FAILED,
    Status.CANCELLED: TaskResultStatus.FAILED,
}
# Classes that the queue itself writes into an error history, and the exception nearest to each.
OWN_CLASSES = {
    "Lost": "queues.retry.LostLease",
    "WorkerDied": "queues.retry.LostLease",
    "Requeued": "queues.retry.LostLease",
    "BadPayload": "builtins.ValueError",
    "BadResult": "builtins.ValueError",
    "BadOutcome": "builtins.ValueError",
}


class Row(NamedTuple):
    """What a TaskResult tells of, read without the models: a query of theirs costs three times it."""

    id: UUID
    type: str
    status: str
    priority: int
    queue: str
    run_at: datetime
    lease: int
    worker_id: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    payload: Any
    result: Any
    errors: list[dict[str, Any]]


def rows(ids: Sequence[UUID], *, archived: bool = False) -> list[Row]:
    """The rows of these ids as far as they exist; those of archived tasks only if asked for."""
    table = "all_tasks" if archived else "tasks"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(Row._fields)} FROM {table} WHERE id = ANY (%s::uuid[])",  # noqa: S608
            [list(ids)],
        )
        return [Row(*columns[:-3], *map(_loads, columns[-3:])) for columns in cursor.fetchall()]


def find(result_id: str) -> Row | None:
    """The row of this id, live or archived, if it is an id and exists."""
    try:
        id = UUID(result_id)
    except (ValueError, TypeError, AttributeError):
        return None
    return next(iter(rows([id], archived=True)), None)


def _loads(text: str | None) -> Any:
    return None if text is None else json.loads(text, cls=TolerantDecoder)


def result_of(row: Row, task: Task[P, R], backend: str) -> TaskResult[P, R]:
    """What Django's Tasks API tells of a row. `task`: the one that it was enqueued as."""
    records = row.errors
    args, kwargs = arguments(row.payload)
    result = TaskResult(
        task=task,
        id=str(row.id),
        status=STATUS[Status(row.status)],
        enqueued_at=row.created_at,
        started_at=(_started(records[0]) if records else None) or row.started_at,
        last_attempted_at=row.started_at or (_started(records[-1]) if records else None),
        finished_at=row.completed_at,
        args=args,
        kwargs=kwargs,
        backend=backend,
        errors=[_error(record) for record in records],
        worker_ids=_workers(row),
    )
    if row.status == Status.COMPLETED:
        # The field is private, but Django's own backends know no other way to set it.
        object.__setattr__(result, "_return_value", row.result)
    return result


def arguments(payload: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in a payload. What is missing or misshapen, as a foreign caller may write it,
    counts as none."""
    found = payload if isinstance(payload, dict) else {}
    args, kwargs = found.get("args"), found.get("kwargs")
    return args if isinstance(args, list) else [], kwargs if isinstance(kwargs, dict) else {}


def _workers(row: Row) -> list[str]:
    """The worker of each attempt, oldest first; "" where a long history has dropped its entry."""
    workers: list[str] = []
    last = 0
    for record in row.errors:
        attempt = record["attempt"]
        # An operator's retry counts from 1 again, so a number that is not higher begins a round.
        first = last + 1 if attempt > last else 1
        workers += [""] * (attempt - first) + [record.get("worker", "")]
        last = attempt
    recorded = bool(row.errors) and _started(row.errors[-1]) == row.started_at
    if row.worker_id and not recorded:
        workers.append(row.worker_id)
    return workers


def _started(record: dict[str, Any]) -> datetime | None:
    text = record.get("started_at")
    return datetime.fromisoformat(text) if text else None


def _error(record: dict[str, Any]) -> TaskError:
    name = record.get("class", "Exception")
    if module := record.get("module"):
        path = f"{module}.{name}"
    elif isinstance(getattr(builtins, name, None), type):
        path = f"builtins.{name}"
    else:
        path = OWN_CLASSES.get(name, name if "." in name else "builtins.Exception")
    return TaskError(
        exception_class_path=path, traceback=record.get("traceback") or record.get("message", "")
    )
