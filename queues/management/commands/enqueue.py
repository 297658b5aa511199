from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from queues import registry
from queues.enqueue import Enqueued, EnqueueError, NewTask, enqueue, enqueue_many
from queues.models import Queue
from queues.task_lines import Tally, close_to, load, opened, type_problem

MOST_COPIES = 1_000_000


class Command(BaseCommand):
    help = "Put a task, or every task of a file of JSON lines, in the queue."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("type", nargs="?", help="the task's type")
        parser.add_argument(
            "payload", nargs="?", help="JSON, or @FILE that holds JSON (default: {})"
        )
        parser.add_argument("--queue", help="default: the queue of the type's handler")
        parser.add_argument("--count", type=int, help="how many such tasks (default 1)")
        parser.add_argument("--run-at", help="not before this moment, ISO 8601")
        parser.add_argument("--after", help="ids of tasks to wait for, comma separated")
        parser.add_argument("--priority", type=int, help="-100 to 100, higher runs first")
        parser.add_argument("--dedupe-key", help="enqueue nothing while this key is live")
        parser.add_argument(
            "--foreign", action="store_true", help="the type has no handler in this project"
        )
        parser.add_argument(
            "--from", dest="file", help='one JSON object a line; "-" reads standard input'
        )

    def handle(self, **options: Any) -> None:
        try:
            if options["file"] is not None:
                self._enqueue_file(options)
            else:
                self._enqueue_one_type(options)
        except EnqueueError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}.") from error

    def _enqueue_file(self, options: dict[str, Any]) -> None:
        mixed = ("type", "payload", "queue", "count", "run_at", "after", "priority", "dedupe_key")
        if any(options[name] is not None for name in mixed):
            raise CommandError(
                "--from takes no type and no other option than --foreign: they belong in the lines."
            )
        with opened(options["file"]) as file:
            self._report(load(file, foreign=options["foreign"]))

    def _enqueue_one_type(self, options: dict[str, Any]) -> None:
        task = self._task(options)
        if not options["foreign"] and (problem := type_problem(task.type)):
            raise CommandError(
                f"{problem} Known types: {', '.join(registry.known_types())}. For a type whose "
                "workers live elsewhere, add --foreign."
            )
        queue = task.checked()["queue"]
        known = list(Queue.objects.values_list("name", flat=True))
        if queue not in known:
            raise CommandError(
                f"There is no queue {queue!r}.{close_to(queue, known)} Queues: {', '.join(known)}."
            )
        count = 1 if options["count"] is None else options["count"]
        if not 1 <= count <= MOST_COPIES:
            raise CommandError(f"--count is a number from 1 to {MOST_COPIES:,}.")
        if count > 1 and task.dedupe_key:
            raise CommandError("--dedupe-key makes one task; leave out --count.")
        if count > 1:
            return self._report(_copies(task, count))
        with transaction.atomic():
            made = enqueue(**{name: getattr(task, name) for name in NewTask.__slots__})
        self.stdout.write(str(made.id))
        if not made.created:
            self.stderr.write("Nothing enqueued: this task with the same dedupe key is live.")
        return None

    def _task(self, options: dict[str, Any]) -> NewTask:
        if not options["type"]:
            raise CommandError("Give a type, or --from FILE. See `manage.py enqueue --help`.")
        return NewTask(
            type=options["type"],
            payload=_payload(options["payload"]),
            queue=options["queue"],
            priority=options["priority"],
            run_at=options["run_at"],
            dedupe_key=options["dedupe_key"],
            after=[id.strip() for id in (options["after"] or "").split(",") if id.strip()],
        )

    def _report(self, tally: Tally) -> None:
        if not tally.count:
            self.stdout.write("Nothing enqueued: there is no task in it.")
            return
        text = f"{tally.created:,} enqueued, first {tally.first}, last {tally.last}"
        if live := tally.count - tally.created:
            text += f"; {live:,} more were live already under their dedupe key"
        self.stdout.write(text)


def _payload(text: str | None) -> Any:
    if text is None:
        return {}
    where = "the payload"
    if text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CommandError(f"{where} is not UTF-8: byte {error.start + 1} is wrong.") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise CommandError(f"{where} is nested too deeply.") from error
    except ValueError as error:
        raise CommandError(
            f"{where} is not JSON: {error}. Given: {text:.60}. "
            "In a shell, put single quotes around it."
        ) from error


def _copies(task: NewTask, count: int) -> Tally:
    tally = Tally()
    with transaction.atomic():
        for made in _batches(task, count):
            tally.add(made)
    return tally


def _batches(task: NewTask, count: int) -> Iterator[list[Enqueued]]:
    while count:
        size = min(count, 2000)
        yield enqueue_many(repeat(task, size))
        count -= size
