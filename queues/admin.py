"""The stock admin for every table of the queue: careful with large tables and with permissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.paginator import Paginator
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from queues import operations
from queues.console import actions
from queues.console.formats import count
from queues.models import Operation, OperationItem, Queue, Task, TaskDependency, Worker
from queues.operations import OperationError

DEEPEST_ROW = 5_000

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
    ModelAdmin = admin.ModelAdmin[Any]
else:
    AnyPaginator, ModelAdmin = Paginator, admin.ModelAdmin


class CappedPaginator(AnyPaginator):
    """Counts and pages no deeper than DEEPEST_ROW, whatever the table holds.

    Pages beyond are reached by filtering, or in the console, whose list has keyset pages.
    """

    @property
    def count(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        if not hasattr(self, "_capped"):
            self._capped = rows.order_by().values("pk")[:DEEPEST_ROW].count()
        return self._capped


class LargeTableAdmin(ModelAdmin):
    """For tables that may hold millions of rows: one bounded count, no deep OFFSET, no joins."""

    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 200
    list_select_related = False
    ordering = ("-pk",)


class ReadOnlyAdmin(LargeTableAdmin):
    """A record of what happened: looked at, never written by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def verb(
    name: str, description: str, act: Callable[..., Operation]
) -> Callable[..., HttpResponse | None]:
    """An admin action that calls one verb of queues.operations on the selected tasks."""

    @admin.action(description=description, permissions=[name])
    def run(self: TaskAdmin, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: operations.MAX_TASKS + 1])
        if name == "cancel" and 0 < len(ids) <= operations.MAX_TASKS:
            return actions.ask(request, name, ids, back=request.get_full_path())
        try:
            made = act(ids, actor=request.user.get_username(), reason="from the admin")
        except OperationError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        link = reverse("queue:operation", args=[made.pk])
        text = f"{name.capitalize()}: {count(made.done, 'task')} done, {made.skipped:,} left alone."
        level = messages.SUCCESS if made.done else messages.WARNING
        self.message_user(
            request, format_html('{} <a href="{}">What was done</a>', text, link), level
        )
        return None

    run.__name__ = f"{name}_selected"
    return run


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    """Tasks change through their verbs alone, so no field is editable here."""

    list_display = (
        "short",
        "type",
        "status",
        "queue_name",
        "attempts",
        "created_at",
        "console_link",
    )
    list_filter = ("status",)
    search_fields = ("id__exact", "correlation_id__exact")
    search_help_text = "A task's whole id or its correlation id. The console searches by more."
    actions = (
        verb("retry", "Retry the selected failed or cancelled tasks", operations.retry),
        verb("requeue", "Requeue the selected scheduled or stuck tasks", operations.requeue),
        verb("cancel", "Cancel the selected tasks", operations.cancel),
    )
    exclude = ("payload", "result", "errors")
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return super().get_queryset(request).defer("payload", "result", "errors")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("queue.retry_task")

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("queue.requeue_task")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("queue.cancel_task")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        term = search_term.strip().replace("\x00", "")
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            return queryset.filter(correlation_id=term), False

    @admin.display(description="Task", ordering="id")
    def short(self, task: Task) -> str:
        return f"…{str(task.pk)[-12:]}"

    @admin.display(description="Queue")
    def queue_name(self, task: Task) -> str:
        return str(task.queue_id)

    @admin.display(description="Console")
    def console_link(self, task: Task) -> SafeString:
        return format_html('<a href="{}">open</a>', reverse("queue:task", args=[task.pk]))


@admin.register(Queue)
class QueueAdmin(ModelAdmin):
    """The rules of a queue. Its name is its identity and stays."""

    list_display = ("name", "paused", "max_concurrent", "default_timeout", "default_max_attempts")
    search_fields = ("name",)
    formfield_overrides = {models.TextField: {"widget": AdminTextInputWidget}}

    def get_readonly_fields(
        self, request: HttpRequest, obj: Queue | None = None
    ) -> tuple[str, ...]:
        """Who paused it and when is noted, not typed. Operators may pause, and no more."""
        noted = ("paused_by", "paused_at")
        if super().has_change_permission(request, obj):
            return (*noted, "name") if obj else noted
        rules = ("description", "max_concurrent", "default_timeout", "default_max_attempts")
        return (*noted, "name", *rules)

    def has_change_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        may_pause = request.user.has_perm("queue.pause_queue")
        return may_pause or super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        turned = "paused" in form.changed_data
        if turned:
            obj.paused_by = request.user.get_username() if obj.paused else ""
            obj.paused_at = timezone.now() if obj.paused else None
            if not obj.paused:
                obj.paused_reason, obj.paused_until = "", None
        super().save_model(request, obj, form, change)
        if turned:
            operations.note_pause(obj, actor=request.user.get_username())

    def has_delete_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        """A queue that a task names cannot be deleted, nor the one that tasks get by default."""
        if obj is not None and (
            obj.pk == "default" or Task.objects.filter(queue_id=obj.pk).exists()
        ):
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("id", "kind", "status", "host", "concurrency", "heartbeat_at", "started_at")
    list_filter = ("kind", "status")
    search_fields = ("id",)


@admin.register(TaskDependency)
class TaskDependencyAdmin(ReadOnlyAdmin):
    list_display = ("task_id", "predecessor_id", "on_failure", "outcome")
    search_fields = ("task__id__exact", "predecessor_id__exact")


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "verb", "actor", "requested", "done", "skipped", "reason")
    list_filter = ("verb",)
    search_fields = ("actor", "reason")


@admin.register(OperationItem)
class OperationItemAdmin(ReadOnlyAdmin):
    list_display = ("operation_id", "task_id", "outcome", "before", "after", "note")
    list_filter = ("outcome",)
    search_fields = ("task_id__exact",)
