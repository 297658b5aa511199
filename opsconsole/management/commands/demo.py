from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from opsconsole.demo import supervisor


class Command(BaseCommand):
    """Runs until it is told to stop; the settings need not be loadable, nor a database there."""

    help = "Run OpsConsole on this machine: database, web server and one worker (make demo)."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(supervisor.main())
