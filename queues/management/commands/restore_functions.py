from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from queues import functions
from queues.console.formats import count


class Command(BaseCommand):
    """Says what is wrong first with `manage.py doctor`. Safe to run on a database in use."""

    help = "Create SQL functions of OpsConsole again as they should be, with their grants."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", help="Functions; without a name, all of them.")
        parser.add_argument(
            "--replace",
            action="store_true",
            help="First drop functions of these names that have another signature.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        known = [function.name for function in functions.expected()]
        names = options["names"] or known
        if unknown := sorted(set(names) - set(known)):
            raise CommandError(f"{unknown[0]} is no function of OpsConsole.")
        try:
            functions.restore(names, replace=options["replace"])
        except DatabaseError as error:
            raise CommandError(f"Nothing was changed: {str(error).strip()}") from error
        are = "is as it" if len(names) == 1 else "are as they"
        self.stdout.write(f"{count(len(names), 'function')} {are} should be.")
