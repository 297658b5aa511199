from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from opsconsole import doctor
from queues import functions
from queues.console.formats import count


class Command(BaseCommand):
    """Exit code 0: the database can be used as it is. Else it says why not, and what mends it."""

    help = "Say whether the database is reachable, migrated and whole, and what mends it if not."
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
                f"{_are(len(missing), 'migration')} not applied, {missing[0]} first: "
                "run manage.py migrate."
            )
        self.stdout.write("All migrations are applied.")
        findings = functions.findings()
        for finding in findings:
            self.stderr.write(f"{finding.kind}: {finding.sentence} Run: {finding.remedy}")
        if findings:
            they = "it" if len(findings) == 1 else "they"
            raise CommandError(f"{_are(len(findings), 'function')} not as {they} should be.")
        self.stdout.write(f"All {len(functions.expected())} functions are there and granted.")
        if problems := doctor.verify():
            raise CommandError(" ".join(problems))
        self.stdout.write("tasks, transactions and claim_next_task() answer.")


def _are(number: int, noun: str) -> str:
    return f"{count(number, noun)} {'is' if number == 1 else 'are'}"
