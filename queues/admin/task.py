"""Tasks in the admin, live and archived, with the operators' verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from queues import guards, operations
from queues.admin.shared import ReadOnlyAdmin
from queues.console import actions
from queues.console.formats import count
from queues.console.verbs import VERBS
from queues.models import (
    ArchivedTask,
    Task,
)
from queues.operations import OperationError


def action(name: str, description: str) -> Callable[..., HttpResponse | None]:
    """An admin action that does one verb of the console to the selected tasks."""
    verb = VERBS[name]

    @admin.action(description=description)
    def run(self: TaskAdmin, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: operations.MAX_TASKS + 1])
        few = 0 < len(ids) <= operations.MAX_TASKS
        if few and (verb.asks or guards.refusals(verb.operation, ids)):
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
