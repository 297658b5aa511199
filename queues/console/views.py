"""The pages. Each looks at the database once and changes nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models import Count, Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from queues import exports, registry
from queues.console import story, verdicts
from queues.console.access import page, render_whole_or, staff_with
from queues.console.filters import TaskFilter
from queues.console.keyset import page_of, total_of
from queues.console.snapshot import snapshot
from queues.console.verbs import offered
from queues.lookup import find_task
from queues.models import Operation, Queue, Task, TaskFields, Worker

ITEMS_SHOWN = 1000


@require_safe
@page("queue.view_task")
def overview(request: HttpRequest) -> HttpResponse:
    """The verdict, then a row a queue."""
    taken = snapshot()
    problems = verdicts.problems(taken, request.user.has_perm)
    context = {
        "snapshot": taken,
        "problems": problems,
        "first": problems[: verdicts.FIRST],
        "rest": problems[verdicts.FIRST :],
    }
    return render_whole_or(request, "overview", context)


@require_safe
@page("queue.view_task")
def tasks(request: HttpRequest) -> HttpResponse:
    """The task list: filters in the URL, keyset pages."""
    chosen = TaskFilter.from_query(request.GET)
    found = page_of(chosen.rows(), chosen.order, request.GET.get("cursor", ""))
    total, exact = total_of(chosen.rows(), whole=chosen.is_empty)
    queues = Queue.objects.values_list("name", flat=True)
    context = {
        "filter": chosen,
        "page": found,
        "total": total,
        "exact": exact,
        "statuses": [("", "all"), *((s, s) for s in chosen.statuses)],
        "queues": queues,
        "types": registry.known_types(),
        "verbs": offered(request.user.has_perm, chosen.status, archive=chosen.archive),
    }
    return render_whole_or(request, "tasks", context)


@require_safe
@page("queue.view_task")
def task(request: HttpRequest, task_id: UUID) -> HttpResponse:
    """All that is known of one task."""
    shown = _found(task_id)
    context = story.of(shown) | {
        "may_download": may_download(request, shown),
        "verbs": offered(request.user.has_perm, shown.status),
        "panels": [panel for make in story.panels if (panel := make(request, shown))],
    }
    return render_whole_or(request, "task", context)


@require_safe
@staff_with("queue.view_task")
def output(request: HttpRequest, task_id: UUID) -> FileResponse:
    """The file that a task made."""
    shown = _found(task_id)
    if not may_download(request, shown):
        raise PermissionDenied("the export's source")
    name = shown.output_location
    if not name or not default_storage.exists(name):
        raise Http404("This task has no file, or it was deleted.")
    return FileResponse(
        default_storage.open(name), as_attachment=True, filename=name.rsplit("/", 1)[-1]
    )


@require_safe
@page("queue.view_task")
def stuck(request: HttpRequest) -> HttpResponse:
    """Tasks whose worker is gone or whose timeout has passed, with the evidence."""
    parameters: dict[str, Any] = {"silence": settings.QUEUE_SILENCE}
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT t.id, t.type, t.queue, t.lease, t.attempts, t.max_attempts, t.started_at, t.worker_id,
                      w.heartbeat_at, w.status AS worker_status, coalesce(t.timeout, q.default_timeout) AS timeout,
                      stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout), %(silence)s) AS reason
                 FROM tasks t JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
                WHERE t.status = 'processing'
                  AND stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout), %(silence)s) IS NOT NULL
                ORDER BY t.started_at LIMIT 201""",
            parameters,
        )
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    context = {
        "rows": rows[:200],
        "more": len(rows) > 200,
        "snapshot": snapshot(),
        "may_rescue": request.user.has_perm("queue.requeue_task"),
    }
    return render_whole_or(request, "stuck", context)


@require_safe
@page("queue.view_worker")
def workers(request: HttpRequest) -> HttpResponse:
    """Who works, on what, and when it was last heard of."""
    everyone = bool(request.GET.get("all"))
    rows = (
        Worker.objects.filter()
        if everyone
        else Worker.objects.filter(kind="process").exclude(status="gone")
    )
    listed = list(rows.order_by("status", "-started_at")[:200])
    held = dict(
        Task.objects.filter(status="processing", worker_id__in=[w.id for w in listed])
        .values_list("worker_id")
        .annotate(n=Count("pk"))
        .order_by()
    )
    hidden = Worker.objects.filter(Q(kind="ephemeral") | Q(status="gone")).count()
    context = {
        "workers": [(worker, held.get(worker.id, 0)) for worker in listed],
        "silent_before": timezone.now() - settings.QUEUE_SILENCE,
        "everyone": everyone,
        "hidden": hidden,
    }
    return render_whole_or(request, "workers", context)


@require_safe
@page("queue.view_operation")
def operations(request: HttpRequest) -> HttpResponse:
    """What people did, newest first."""
    listed = Operation.objects.all()
    if before := request.GET.get("before"):
        try:
            listed = listed.filter(id__lt=UUID(before))
        except ValueError as error:
            raise Http404("That is no operation's id.") from error
    rows = list(listed[:51])
    context = {"operations": rows[:50], "older": rows[49].id if len(rows) > 50 else None}
    return render_whole_or(request, "operations", context)


@require_safe
@page("queue.view_operation")
def operation(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    """One act: who, why, and what became of each task."""
    shown = get_object_or_404(Operation, pk=operation_id)
    items = list(shown.items.all()[:ITEMS_SHOWN])
    skipped = [item for item in items if item.outcome == "skipped"]
    done = [item for item in items if item.outcome == "done"]
    return render_whole_or(
        request, "operation", {"operation": shown, "done": done, "skipped": skipped}
    )


def _found(task_id: UUID) -> TaskFields:
    task = find_task(task_id)
    if task is None:
        raise Http404("There is no task with this id; it may be older than what is kept.")
    return task


def may_download(request: HttpRequest, task: TaskFields) -> bool:
    """Whether the reader may see what the task's file holds: an export shows its source's rows."""
    source = task.payload.get("source") if isinstance(task.payload, dict) else None
    if task.type != "export" or not isinstance(source, str) or source not in exports.sources():
        return True
    return request.user.has_perm(exports.sources()[source].permission)
