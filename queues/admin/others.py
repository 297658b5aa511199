"""Workers, dependencies, operations, projects and endpoints in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db import models

from queues.admin.shared import LargeTableAdmin, ModelAdmin, ReadOnlyAdmin
from queues.models import (
    Endpoint,
    Operation,
    OperationItem,
    ProjectMember,
    TaskDependency,
    Worker,
)


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
