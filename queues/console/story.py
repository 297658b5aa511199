"""One task's story: what happened to it, what it waits for, what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from queues.console.formats import count, duration
from queues.lookup import UNREAD, find_tasks
from queues.models import AnyTask, OperationItem, Task, TaskDependency, TaskFields, Worker

TRAIL_SHOWN = 50


@dataclass(frozen=True)
class Event:
    """A point of the timeline. `state` picks its colour and icon."""

    at: datetime
    state: str
    title: str
    detail: str = ""


@dataclass(frozen=True)
class Panel:
    """Something another app shows on a task's page: pairs of a label and a value, and a link."""

    title: str
    facts: list[tuple[str, Any]]
    url: str = ""


panels: list[Callable[[HttpRequest, TaskFields], Panel | None]] = []


def of(task: TaskFields) -> dict[str, Any]:
    """The context of a task's page."""
    acts = list(
        OperationItem.objects.filter(task_id=task.id, outcome="done")
        .select_related("operation")
        .order_by("-id")[:50]
    )
    attempts = [
        record
        | {
            "at": parse_datetime(record["at"]),
            "started_at": parse_datetime(record.get("started_at") or ""),
        }
        for record in reversed(task.errors)
    ]
    return {
        "task": task,
        "sentence": sentence(task),
        "events": timeline(task, attempts, acts),
        "attempts": attempts,
        "predecessors": _tasks(
            TaskDependency.objects.filter(task_id=task.id).values_list(
                "predecessor_id", "on_failure"
            )
        ),
        "dependants": _tasks(
            TaskDependency.objects.filter(predecessor_id=task.id).values_list(
                "task_id", "on_failure"
            )[:100]
        ),
        "trail": _trail(task),
    }


def timeline(
    task: TaskFields, attempts: list[dict[str, Any]], acts: list[OperationItem]
) -> list[Event]:
    """What happened, newest first."""
    moved = any(item.operation.verb == "move" for item in acts)
    where = "" if moved else f"in queue {task.queue_id}"
    events = [Event(task.created_at, "pending", "Enqueued", where)]
    for record in attempts:
        ran = (
            f" after {duration((record['at'] - record['started_at']).total_seconds())}"
            if record["started_at"]
            else ""
        )
        events.append(
            Event(
                record["at"],
                "failed",
                f"Attempt {record['attempt']} failed{ran}",
                f"{record.get('class', '')}: {record.get('message', '')} (worker {record.get('worker', '?')})",
            )
        )
    for item in acts:
        what = item.note if item.before == item.after else f"{item.before} → {item.after}"
        why = f": {item.operation.reason}" if item.operation.reason else ""
        events.append(
            Event(
                item.operation.created_at,
                item.after or "pending",
                f"{item.operation.verb.capitalize()} by {item.operation.actor}",
                f"{what}{why}",
            )
        )
    if task.started_at and task.status in ("processing", "completed"):
        events.append(
            Event(
                task.started_at,
                "processing",
                f"Attempt {task.attempts} started",
                f"by worker {task.worker_id}",
            )
        )
    if task.completed_at and task.status in ("completed", "cancelled"):
        events.append(
            Event(task.completed_at, task.status, task.status.capitalize(), task.error or "")
        )
    if task.status == "scheduled":
        events.append(Event(task.run_at, "scheduled", "Due", "it runs when a worker is free"))
    return sorted(events, key=lambda event: event.at, reverse=True)


def sentence(task: TaskFields) -> str:
    """Where the task is and what happens next, in one sentence."""
    now = timezone.now()
    match task.status:
        case "blocked":
            return f"Waits for {count(task.waits_on, 'task')} that must complete first."
        case "scheduled":
            wait = duration((task.run_at - now).total_seconds())
            if task.errors and task.errors[-1].get("attempt") == task.attempts:
                return f"Attempt {task.attempts} of {task.max_attempts} failed; the next is due in {wait}."
            return f"Due in {wait}." + (f" {task.error}" if task.error else "")
        case "pending":
            return _why_pending(task)
        case "processing":
            limit = task.timeout or task.queue.default_timeout
            since = (now - (task.started_at or now)).total_seconds()
            worker = Worker.objects.filter(pk=task.worker_id).first()
            if (
                worker
                and worker.heartbeat_at
                and worker.heartbeat_at < now - settings.QUEUE_SILENCE
            ):
                silent = duration((now - worker.heartbeat_at).total_seconds())
                return f"Stuck: its worker {worker.id} has been silent for {silent}. Another one takes it back, or you do."
            return (
                f"Attempt {task.attempts} of {task.max_attempts}, running for {duration(since)} "
                f"of at most {duration(limit.total_seconds())}."
            )
        case "completed":
            took = ((task.completed_at or now) - (task.started_at or now)).total_seconds()
            return f"Completed in {duration(took)}, at attempt {task.attempts}."
        case "failed":
            return f"Failed for good after {count(task.attempts, 'attempt')}. Nothing more happens unless someone retries it."
        case _:
            return task.error or "Cancelled."


def _why_pending(task: TaskFields) -> str:
    queue = task.queue
    if queue.paused and (queue.paused_until is None or queue.paused_until > timezone.now()):
        by = f" by {queue.paused_by}" if queue.paused_by else ""
        why = f": {queue.paused_reason}" if queue.paused_reason else ""
        return f"Queue {queue.name} is paused{by}{why}."
    fresh = timezone.now() - timedelta(minutes=1)
    serving = Q(queues__isnull=True) | Q(queues__contains=[queue.name])
    beating = Worker.objects.filter(serving, status="alive", heartbeat_at__gt=fresh)
    callers = Task.objects.filter(queue=queue, status="processing")
    if not beating.exists() and not callers.exists():
        return f"No live worker serves queue {queue.name}."
    if queue.max_concurrent is not None:
        running = Task.objects.filter(queue=queue, status="processing").count()
        if running >= queue.max_concurrent:
            return f"Queue {queue.name} runs {running} of at most {queue.max_concurrent} tasks; this one waits its turn."
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FROM (SELECT FROM tasks t WHERE t.queue = %s AND t.status = 'pending'
                  AND (t.priority > %s OR t.priority = %s AND (t.round, t.run_at, t.id) < (%s, %s, %s)) LIMIT 10001) a""",
            [queue.name, task.priority, task.priority, task.round, task.run_at, task.id],
        )
        [ahead] = cursor.fetchone()
    return (
        f"Waits for a free worker; {count(ahead, 'task')} ahead of it."
        if ahead
        else "Next in line; a worker takes it as soon as one is free."
    )


def _tasks(edges: Any) -> list[tuple[TaskFields | None, Any, str]]:
    """(task or None when it is no longer kept, its id, on_failure) for each edge."""
    pairs = list(edges)
    found = find_tasks([id for id, _ in pairs])
    return [(found.get(id), id, on_failure) for id, on_failure in pairs]


def _trail(task: TaskFields) -> list[AnyTask]:
    """Tasks that share the correlation id, oldest first: the webhook's task, its children, theirs."""
    key = task.correlation_id or str(task.id)
    related = AnyTask.objects.defer(*UNREAD).filter(_on_trail(key)).exclude(pk=task.pk)
    return list(related.order_by("id")[:TRAIL_SHOWN])


def _on_trail(key: str) -> Q:
    """The tasks that carry the key, and the one that began the trail, whose id it may be."""
    try:
        return Q(correlation_id=key) | Q(pk=UUID(key))
    except ValueError:
        return Q(correlation_id=key)
