"""Upkeep of the archive, which every worker does from time to time; none needs to be the leader."""

from __future__ import annotations

import time

from queues import claims

CHUNK = 5000
LONGEST_SECONDS = 1.0


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
