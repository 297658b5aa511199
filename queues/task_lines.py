"""Loading a file with one task a line: all of it or nothing, every bad line named."""

from __future__ import annotations

import difflib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import IO
from uuid import UUID

from django.db import transaction

from queues import registry
from queues.enqueue import Enqueued, EnqueueError, NewTask, enqueue_many
from queues.models import Queue

BATCH = 2000
BATCH_BYTES = 8 * 1024 * 1024
LONGEST_LINE_BYTES = 16 * 1024 * 1024
MOST_TOLD = 20


@dataclass
class Tally:
    """What was enqueued: how many tasks were asked for, how many of them are new."""

    count: int = 0
    created: int = 0
    first: UUID | None = None
    last: UUID | None = None

    def add(self, made: Sequence[Enqueued]) -> None:
        self.count += len(made)
        self.created += sum(one.created for one in made)
        if made:
            self.first = self.first or made[0].id
            self.last = made[-1].id


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank, numbered from 1: its task, or what is wrong with it."""

    number: int
    bytes: int
    task: NewTask | None = None
    problem: str = ""


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """The file of that name. "-" is standard input, copied: it is read twice. Raises OSError."""
    if name != "-":
        with open(name, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.seek(0)
        yield file


def load(file: IO[bytes], *, foreign: bool = False) -> Tally:
    """Enqueue every line of a file of JSON lines, in one transaction, in bounded memory.

    A line is an object with the keys of NewTask; blank lines and a byte order mark are passed over.
    `foreign`: types without a handler in this project are allowed. Raises EnqueueError, nothing
    being written, that names the bad lines: the first 20 of them, and how many more there are.
    """
    known = set(Queue.objects.values_list("name", flat=True))
    problems: list[str] = []
    count = 0
    for line in _lines(file, foreign):
        if problem := line.problem or _problem(line.task, known):
            count += 1
            if count <= MOST_TOLD:
                problems.append(f"line {line.number}: {problem}")
    if count:
        raise EnqueueError(_sentences(problems, count))
    file.seek(0)
    tally = Tally()
    with transaction.atomic():
        lines = _lines(file, foreign)
        while batch := _batch(lines):
            tally.add(_insert(batch))
    return tally


def type_problem(type: str) -> str:
    """Why a type cannot be enqueued here, or "" when this project has a handler for it."""
    known = registry.known_types()
    if not isinstance(type, str) or type in known:
        return ""
    return f"No handler here has the type {type!r:.100}.{close_to(type, known)}"


def close_to(word: str, known: Sequence[str]) -> str:
    """A question with the words that `word` may stand for, or ""."""
    close = difflib.get_close_matches(word[:200], known)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _lines(file: IO[bytes], foreign: bool) -> Iterator[Line]:
    number = start = 0
    while raw := file.readline(LONGEST_LINE_BYTES):
        number += 1
        length = len(raw)
        too_long = False
        while not raw.endswith(b"\n") and (more := file.readline(LONGEST_LINE_BYTES)):
            too_long = True
            length += len(more)
            raw = more
        if too_long:
            size = length - raw.endswith(b"\n")
            problem = f"it is {size:,} bytes long; the most is {LONGEST_LINE_BYTES:,}."
            yield Line(number, length, problem=problem)
        elif raw.strip(b" \t\r\n\xef\xbb\xbf" if number == 1 else b" \t\r\n"):
            try:
                yield Line(number, length, task=_task(raw, number, start, foreign))
            except EnqueueError as error:
                yield Line(number, length, problem=str(error))
        start += length


def _task(raw: bytes, number: int, start: int, foreign: bool) -> NewTask:
    """The task of a line whose first byte is byte `start` of the file. Raises EnqueueError."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        utf_16 = number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise EnqueueError(
            f"it is not UTF-8: byte {error.start + 1:,} of the line, {start + error.start + 1:,} "
            f"of the file, is wrong.{' The file looks like UTF-16.' if utf_16 else ''}"
        ) from error
    try:
        fields = json.loads((text.removeprefix("\ufeff") if number == 1 else text).rstrip())
    except RecursionError as error:
        raise EnqueueError("it is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise EnqueueError(f"it is not JSON: {error.msg} at column {error.colno}.") from error
    except ValueError as error:
        raise EnqueueError(f"it is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise EnqueueError(f"it must be an object of JSON, not {text.strip():.40}.")
    task = NewTask.from_dict(fields)
    if not foreign and (problem := type_problem(task.type)):
        raise EnqueueError(problem)
    return task


def _problem(task: NewTask | None, queues: set[str]) -> str:
    """Why a task would be refused, or "", as far as it can be told without its predecessors."""
    if task is None:
        return ""
    try:
        queue = task.checked()["queue"]
    except EnqueueError as error:
        return str(error)
    if queue in queues:
        return ""
    names = sorted(queues)
    return f"there is no queue {queue!r}.{close_to(queue, names)} Queues: {', '.join(names)}."


def _batch(lines: Iterator[Line]) -> list[Line]:
    batch: list[Line] = []
    size = 0
    for line in islice(lines, BATCH):
        if line.problem:
            raise EnqueueError(f"line {line.number}: {line.problem} It changed while being read.")
        batch.append(line)
        size += line.bytes
        if size > BATCH_BYTES:
            break
    return batch


def _insert(batch: Sequence[Line]) -> list[Enqueued]:
    """Enqueue a batch; what only the database can refuse is told by its line, too."""
    try:
        return enqueue_many(line.task for line in batch if line.task)
    except EnqueueError as error:
        if error.number is None:
            raise
        line = batch[error.number - 1].number
        raise EnqueueError(f"Nothing was enqueued. line {line}: {error.reason}") from error


def _sentences(problems: Sequence[str], count: int) -> str:
    more = [f"and {count - len(problems):,} more"] if count > len(problems) else []
    known = f"Known types: {', '.join(registry.known_types())}. --foreign allows any other."
    types = [known] if any("No handler here" in problem for problem in problems) else []
    lines = "1 bad line" if count == 1 else f"{count:,} bad lines"
    return "\n".join([f"Nothing was enqueued: {lines}.", *problems, *more, *types])
