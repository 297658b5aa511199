"""The stock admin for every table of the queue: careful with large tables and with permissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.paginator import Paginator
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from queues import operations
from queues.console import actions
from queues.console.formats import count
from queues.console.verbs import VERBS
from queues.models import (
    ArchivedTask,
    Endpoint,
    Operation,
    OperationItem,
    ProjectMember,
    Queue,
    Task,
    TaskDependency,
    Worker,
)
from queues.operations import OperationError

DEEPEST_ROW = 5_000
PAUSING = ("paused", "paused_reason", "paused_until")

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
    ordering: ClassVar[tuple[str, ...]] = ("-pk",)


class ReadOnlyAdmin(LargeTableAdmin):
    """A record of what happened: looked at, never written by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def action(name: str, description: str) -> Callable[..., HttpResponse | None]:
    """An admin action that does one verb of the console to the selected tasks."""
    verb = VERBS[name]

    @admin.action(description=description)
    def run(self: TaskAdmin, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: operations.MAX_TASKS + 1])
        if verb.asks and 0 < len(ids) <= operations.MAX_TASKS:
            return actions.ask(request, name, ids, back=request.get_full_path())
        try:
            made = verb.act(ids, actor=request.user.get_username(), reason="from the admin")
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
        action("retry", "Retry the selected failed or cancelled tasks"),
        action("requeue", "Requeue the selected scheduled or stuck tasks"),
        action("set_priority", "Set the priority of the selected waiting tasks"),
        action("move", "Move the selected waiting tasks to another queue"),
        action("release", "Release the selected processing tasks"),
        action("run_again", "Run the selected completed tasks again"),
        action("cancel", "Cancel the selected tasks"),
    )
    exclude = ("payload", "result", "errors")
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return super().get_queryset(request).defer("payload", "result", "errors")

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Those that this person may use."""
        return {
            name: offer
            for name, offer in super().get_actions(request).items()
            if request.user.has_perm(VERBS[name.removesuffix("_selected")].permission)
        }

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


@admin.register(ArchivedTask)
class ArchivedTaskAdmin(ReadOnlyAdmin):
    list_display = ("id", "type", "status", "attempts", "completed_at")
    list_filter = ("status",)
    search_fields = ("id__exact", "correlation_id__exact")
    search_help_text = "A task's whole id or its correlation id."
    exclude = ("payload", "result", "errors")
    ordering = ("-completed_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ArchivedTask]:
        return super().get_queryset(request).defer("payload", "result", "errors")


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
        editable = (field.name for field in Queue._meta.fields if field.editable)
        return (*noted, *(name for name in editable if name not in (*noted, *PAUSING)))

    def has_change_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        may_pause = request.user.has_perm("queue.pause_queue")
        return may_pause or super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        """Pausing goes through its verb, which notes who did; the other fields are just saved."""
        asked = (obj.paused, obj.paused_reason, obj.paused_until)
        was = [form.initial.get(name) for name in PAUSING]
        obj.paused, obj.paused_reason, obj.paused_until = bool(was[0]), was[1] or "", was[2]
        if change:
            obj.save(update_fields=[name for name in form.changed_data if name not in PAUSING])
        else:
            super().save_model(request, obj, form, change)
        if not set(PAUSING) & set(form.changed_data):
            return
        actor = request.user.get_username()
        try:
            if asked[0]:
                operations.pause(obj.pk, actor=actor, reason=asked[1], until=asked[2])
            elif was[0]:
                operations.resume(obj.pk, actor=actor)
        except OperationError as error:
            self.message_user(request, str(error), messages.WARNING)
        obj.refresh_from_db()

    def has_delete_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        """A queue that a task names cannot be deleted, nor the one that tasks get by default."""
        if obj is not None and (
            obj.pk == "default" or Task.objects.filter(queue_id=obj.pk).exists()
        ):
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
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


@admin.register(ProjectMember)
class ProjectMemberAdmin(LargeTableAdmin):
    list_display = ("project_id", "user_id", "created_at")
    search_fields = ("project_id__exact", "user_id__exact")
    search_help_text = "A whole project or user id."
    formfield_overrides = {models.TextField: {"widget": AdminTextInputWidget}}


@admin.register(Endpoint)
class EndpointAdmin(ModelAdmin):
    list_display = ("name", "url", "secret")
    formfield_overrides = {models.TextField: {"widget": AdminTextInputWidget}}
