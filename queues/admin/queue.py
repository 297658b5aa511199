"""Queues in the admin: their rules, and pausing."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from queues import operations, registry
from queues.admin.shared import ModelAdmin
from queues.models import (
    Queue,
    Task,
)
from queues.operations import OperationError
from queues.upkeep import named_queues

PAUSING = ("paused", "paused_reason", "paused_until")


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

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A queue that something goes to stays, and the answer says what."""
        if self.has_delete_permission(request) and (reason := _needed(object_id)):
            self.message_user(
                request, f"The queue {object_id} was not deleted: {reason}.", messages.ERROR
            )
            return redirect("admin:queue_queue_change", object_id)
        return super().delete_view(request, object_id, extra_context)

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        return {}


def _needed(name: str) -> str | None:
    if types := sorted(handler.type for handler in registry.handlers() if handler.queue == name):
        return f"it takes the tasks of {', '.join(types)}"
    if name in named_queues():
        return "code or settings name it, and migrate would make it again"
    if Task.objects.filter(queue_id=name).exists():
        return "there are tasks in it"
    return None
