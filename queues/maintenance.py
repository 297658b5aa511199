"""What every worker does from time to time beside its tasks; none needs to be the leader."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import DatabaseError, InterfaceError

from queues import claims

log = structlog.get_logger("queues.worker")

CHUNK = 5000
LONGEST_SECONDS = 1.0


@dataclass
class _Chore:
    seconds: float
    work: Callable[[], None]
    due: float = 0.0


_chores: list[_Chore] = []


def every(seconds: float, work: Callable[[], None]) -> None:
    """Have each worker do some work of an app about that often, and soon after its start.

    Several workers may do it at once. What it raises is logged, and it is tried again next time.
    """
    _chores.append(_Chore(seconds, work))


def do_chores() -> None:
    """Do what is due."""
    for chore in _chores:
        now = time.monotonic()
        if now >= chore.due:
            # The jitter keeps many workers from doing it in step.
            chore.due = now + chore.seconds * random.uniform(0.8, 1.2)  # noqa: S311
            try:
                chore.work()
            except (DatabaseError, InterfaceError):
                raise
            except Exception:
                # A worker whose maintenance ends would end, too, and so would all others.
                log.exception("chore failed, trying again", chore=chore.work.__qualname__)


def archive() -> None:
    """Move what is due from the table of tasks to the archive, for about LONGEST_SECONDS at most, each
    chunk its own commit; before that, make the partitions of the coming days and drop one that is too
    old. What is left is done at the next call."""
    claims.query("SELECT make_archive_partitions()", [])
    claims.query("SELECT drop_old_archives()", [])
    deadline = time.monotonic() + LONGEST_SECONDS
    moved = CHUNK
    while moved >= CHUNK and time.monotonic() < deadline:
        [(moved,)] = claims.query("SELECT archive_finished(%s)", [CHUNK])
