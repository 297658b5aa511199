"""Queues in the admin: their rules, and pausing."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db import models
from django.http import HttpRequest

from queues import operations
from queues.admin.shared import ModelAdmin
from queues.models import (
    Queue,
    Task,
)
from queues.operations import OperationError

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

    def has_delete_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        """A queue that a task names cannot be deleted, nor the one that tasks get by default."""
        if obj is not None and (
            obj.pk == "default" or Task.objects.filter(queue_id=obj.pk).exists()
        ):
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        return {}
