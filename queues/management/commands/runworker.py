from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from queues import registry, upkeep
from queues.models import Queue
from queues.worker import Options, Worker
from queues.worker.supervisor import Supervisor


class Command(BaseCommand):
    help = (
        "Run workers: claim due tasks, run their handlers, record the outcomes. SIGTERM or Ctrl-C"
        " lets running handlers finish; a second one gives their tasks back at once. A worker"
        " process that dies is replaced."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--queues", help="names, comma separated, tried in this order; default: all"
        )
        parser.add_argument(
            "--concurrency",
            type=int,
            default=4,
            help="handlers at once in each process, in threads (default 4); 1 is best for very"
            " quick ones, many for those that wait. Coroutines: up to 100 besides",
        )
        parser.add_argument(
            "--processes",
            type=int,
            default=1,
            help="worker processes (default 1): for handlers that compute, one for each core",
        )
        parser.add_argument(
            "--drain", action="store_true", help="exit when no task is due and none runs"
        )
        parser.add_argument(
            "--name", default="", help="start of the workers' ids; default: the host's name"
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=20.0,
            help="seconds that running handlers get after SIGTERM before they are given back (20)",
        )

    def handle(self, **options: Any) -> None:
        queues = [name.strip() for name in (options["queues"] or "").split(",") if name.strip()]
        if not 1 <= options["concurrency"] <= 500:
            raise CommandError("--concurrency is a number from 1 to 500.")
        if not 1 <= options["processes"] <= 64:
            raise CommandError("--processes is a number from 1 to 64.")
        known = list(Queue.objects.values_list("name", flat=True))
        if unknown := [name for name in queues if name not in known]:
            raise CommandError(f"There is no queue {unknown[0]!r}. Queues: {', '.join(known)}.")
        chosen = Options(
            queues=queues or None,
            concurrency=options["concurrency"],
            drain=options["drain"],
            name=options["name"],
            grace=options["grace"],
        )
        upkeep.ensure_queues()
        # What a fork inherits must not be a connection.
        connections.close_all()
        supervisor = Supervisor(
            lambda orders, board: Worker(chosen, orders, board).run(),
            options["processes"],
            may_end=options["drain"],
            slots=chosen.concurrency * registry.largest_batch() + registry.COROUTINES,
        )
        sys.exit(supervisor.run())
