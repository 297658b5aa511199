from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from opsconsole import doctor


class Command(BaseCommand):
    """Exit code 0: the database can be used as it is. Else the first sentence says why not."""

    help = "Say whether the database is reachable, new enough and migrated."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        database = settings.DATABASES["default"]
        problem = doctor.connection_problem(database)
        if problem:
            raise CommandError(problem)
        version, _ = doctor.server_version(database)
        self.stdout.write(
            f"PostgreSQL {version // 10000}.{version % 10000} answers at {doctor.place(database)}."
        )
        missing = doctor.missing_migrations()
        if missing:
            raise CommandError(
                f"{len(missing)} migrations are not applied, {missing[0]} first: "
                "run manage.py migrate."
            )
        self.stdout.write("All migrations are applied.")
