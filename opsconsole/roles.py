"""The groups that staff belong to, and what each may do. Made after every migrate."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.models import Group, Permission
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Q

_QUEUE = Q(content_type__app_label="queue")
_PAYMENTS = Q(content_type__app_label="payments")
_VIEW = Q(codename__startswith="view_")
_OPERATE = Q(
    codename__in=[
        "retry_task",
        "requeue_task",
        "release_task",
        "set_priority_task",
        "move_task",
        "run_again_task",
        "cancel_task",
        "pause_queue",
    ]
)
_MONEY = Q(
    codename__in=[
        "fulfil_transaction",
        "override_settled",
        "reconcile_transaction",
        "handle_webhookdelivery",
    ]
)
_ACCOUNTS = Q(content_type__app_label="auth")

GROUPS = {
    "viewer": _QUEUE & _VIEW,
    "operator": _QUEUE & (_VIEW | _OPERATE),
    "payments": (_QUEUE | _PAYMENTS) & _VIEW | _PAYMENTS & _MONEY,
    "admin": _QUEUE | _PAYMENTS | _ACCOUNTS,
}


def after_migrate(app_config: AppConfig, using: str, **kwargs: Any) -> None:
    """The post_migrate step: once, when the last app's permissions are there."""
    last = [app for app in apps.get_app_configs() if app.models_module][-1]
    if app_config is last and using == DEFAULT_DB_ALIAS:
        ensure_groups()


def ensure_groups() -> None:
    """Create each group and give it what it lacks; permissions that staff added are kept."""
    if Group._meta.db_table not in connections[DEFAULT_DB_ALIAS].introspection.table_names():
        return
    for name, condition in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.add(*Permission.objects.filter(condition))
