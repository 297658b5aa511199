"""What a worker process was doing, in memory that outlives it: its supervisor reads it when the
process has died, to give back what had not begun and charge only what ran."""

from __future__ import annotations

import mmap
import signal

import structlog
from django.db import DatabaseError, InterfaceError, connections

from queues import claims
from queues.claims import Failure

log = structlog.get_logger("queues.worker")
SLOT, LONGEST_ID = 64, 1024


class Board:
    """A slot for each task that can run at once, shared with the process that is forked after it."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, LONGEST_ID + slots * SLOT)

    def name_worker(self, id: str) -> None:
        text = id.encode()
        self._memory[:LONGEST_ID] = text.ljust(LONGEST_ID, b"\0")

    def begin(self, slot: int, key: str, lease: int) -> None:
        start = LONGEST_ID + slot * SLOT
        self._memory[start : start + SLOT] = b"%-63s\n" % f"{key} {lease}".encode()

    def end(self, slot: int) -> None:
        self._memory[LONGEST_ID + slot * SLOT] = 0

    @property
    def worker(self) -> str:
        return self._memory[:LONGEST_ID].rstrip(b"\0").decode()

    def running(self) -> list[tuple[str, int]]:
        """The tasks (id, lease) whose handlers had begun and not returned."""
        found = []
        for slot in range(self._slots):
            start = LONGEST_ID + slot * SLOT
            if self._memory[start]:
                key, lease = self._memory[start : start + SLOT].decode().split()
                found.append((key, int(lease)))
        return found

    def close(self) -> None:
        self._memory.close()


def bury(board: Board, code: int) -> None:
    """After a worker process died: what ran counts as lost, what waited in its buffer goes back
    uncharged, at once. Should the database not answer, others rescue all of it later."""
    if not board.worker:
        return
    how = exit_of(code)
    running = board.running()
    try:
        # Another session may hold such a row for long; then others rescue it.
        claims.query("SELECT set_config('lock_timeout', '2s', false)", [])
        if running:
            claims.fail_tasks([died(key, lease, how) for key, lease in running])
        given_back = claims.unregister_worker(board.worker)
    except (DatabaseError, InterfaceError) as error:
        log.warning("could not give back what a dead worker held", error=str(error).strip())
        return
    finally:
        connections.close_all()
    log.warning(
        "worker died; its tasks were taken back",
        worker=board.worker,
        how=how,
        running=len(running),
        given_back=len(given_back),
    )


def exit_of(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    known = -code in set(signal.Signals)
    return f"ended by {signal.Signals(-code).name if known else f'signal {-code}'}"


def died(key: str, lease: int, how: str) -> Failure:
    """The attempt of a task whose process died under it."""
    return Failure(
        key,
        lease,
        "WorkerDied",
        f"the process that ran it {'was ' if how.startswith('ended') else ''}{how}",
        fingerprint=f"WorkerDied: {how}",
        lost=True,
    )
