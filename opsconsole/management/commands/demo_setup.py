from __future__ import annotations

import json
import secrets
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand
from django.db import transaction

from opsconsole import roles
from opsconsole.demo import seed
from queues.models import Task

USER = "ops"


class Command(BaseCommand):
    """Idempotent. The last line on stdout is JSON: the user, and the password if made just now."""

    help = "Make the groups, the demo's user and its first tasks, where they are missing."

    def handle(self, *args: Any, **options: Any) -> None:
        roles.ensure_groups()
        password = make_user()
        if not Task.objects.exists():
            seed.seed()
        self.stdout.write(json.dumps({"user": USER, "password": password}))


@transaction.atomic
def make_user() -> str | None:
    """Create the user, who may do all that staff can; the password is returned and kept nowhere."""
    if User.objects.filter(username=USER).exists():
        return None
    password = secrets.token_urlsafe(12)
    user = User.objects.create_user(USER, password=password, is_staff=True)
    user.groups.add(Group.objects.get(name="admin"))
    return password
