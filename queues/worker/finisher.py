"""Recording outcomes in batches: one round trip for what finished within a few milliseconds."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, connections

from queues import claims
from queues.claims import Failure, Success
from queues.worker.executor import Nothing, Outcome, Release
from queues.worker.holdings import Holding, Holdings

log = structlog.get_logger("queues.worker")
BATCH = 500
GATHER_SECONDS = 0.01
LINES_A_BATCH = 20
BAD = "BadOutcome"


class Finisher:
    """Takes outcomes from executors and records each exactly once, whatever the database does."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self._outcomes: queue.SimpleQueue[tuple[Outcome, Holding] | None] = queue.SimpleQueue()
        self._abandoned = threading.Event()

    def report(self, outcome: Outcome, holding: Holding) -> None:
        self._outcomes.put((outcome, holding))

    def close(self) -> None:
        """Record what was reported so far, then end."""
        self._outcomes.put(None)

    def abandon(self) -> None:
        """Stop trying: the process ends now, and unrecorded tasks will run again elsewhere."""
        self._abandoned.set()

    def run(self) -> None:
        try:
            while batch := self._gather():
                self._settle(batch)
        finally:
            connections.close_all()

    def _gather(self) -> list[tuple[Outcome, Holding]]:
        """Wait for an outcome, then take those that follow within GATHER_SECONDS. Empty: closed."""
        first = self._outcomes.get()
        if first is None:
            return []
        batch = [first]
        deadline = time.monotonic() + GATHER_SECONDS
        while len(batch) < BATCH:
            try:
                more = self._outcomes.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if more is None:
                self._outcomes.put(None)
                break
            batch.append(more)
        return batch

    def _settle(self, batch: list[tuple[Outcome, Holding]]) -> None:
        outcomes = [outcome for outcome, _ in batch]
        notes: dict[UUID, str] = {}
        for kind in (Success, Failure, Release):
            if chosen := [outcome for outcome in outcomes if isinstance(outcome, kind)]:
                notes |= self._record(chosen)
        if self._abandoned.is_set():
            log.warning("not recorded before the end; these run again", tasks=len(batch))
            return
        self.holdings.settled(holding for _, holding in batch)
        _log(batch, notes)

    def _record(self, outcomes: Sequence[Outcome]) -> dict[UUID, str]:
        """Record outcomes of one kind, through broken connections and around a bad one."""
        pause = 0.1
        while not self._abandoned.is_set():
            try:
                return _write(outcomes)
            except (OperationalError, InterfaceError) as error:
                log.warning("cannot record outcomes, trying again", error=str(error).strip())
                connection.close()
                self._abandoned.wait(pause)
                pause = min(pause * 2, 5.0)
            except (DatabaseError, ValueError, TypeError, OverflowError) as error:
                if len(outcomes) > 1:
                    notes: dict[UUID, str] = {}
                    for outcome in outcomes:
                        notes |= self._record([outcome])
                    return notes
                outcomes = [_unrecordable(outcomes[0], error)]
        return {}


def _unrecordable(outcome: Outcome, error: Exception) -> Failure:
    """What is recorded in place of an outcome that the database refuses."""
    if isinstance(outcome, Nothing) or (
        isinstance(outcome, Failure) and outcome.error_class == BAD
    ):
        raise error
    message = f"Its outcome could not be recorded: {error}"
    return Failure(outcome.id, outcome.lease, BAD, message, fingerprint=BAD, final=True)


def _write(outcomes: Sequence[Outcome]) -> dict[UUID, str]:
    first = outcomes[0]
    if isinstance(first, Success):
        return dict(claims.complete_tasks([o for o in outcomes if isinstance(o, Success)]))
    if isinstance(first, Failure):
        answers = claims.fail_tasks([o for o in outcomes if isinstance(o, Failure)])
        return {id: _after_failure(a.outcome, a.status, a.run_at) for id, a in answers.items()}
    notes: dict[UUID, str] = {}
    for o in outcomes:
        if isinstance(o, Release):
            notes |= claims.release_tasks([(o.id, o.lease)], delay=o.delay, reason=o.reason)
    return notes


def _after_failure(outcome: str, status: str, run_at: datetime) -> str:
    if outcome != "recorded":
        return outcome
    return "failed for good" if status == "failed" else f"next try {run_at:%H:%M:%S}"


def _log(batch: list[tuple[Outcome, Holding]], notes: dict[UUID, str]) -> None:
    """A line a task; when many finish at once, a line for all that went well."""
    quiet = len(batch) > LINES_A_BATCH
    completed = 0
    for outcome, holding in batch:
        task = holding.task
        facts = {
            "task": str(task.id),
            "type": task.type,
            "attempt": task.attempts,
            "ms": round((time.monotonic() - (holding.started or holding.claimed)) * 1000),
        }
        note = notes.get(outcome.id, "")
        if isinstance(outcome, Failure):
            log.warning(
                "task attempt failed",
                **facts,
                error=f"{outcome.error_class}: {outcome.message}"[:300],
                then=note,
            )
        elif isinstance(outcome, Release):
            log.info("task given back", **facts, reason=outcome.reason)
        elif note == "stale" or (isinstance(outcome, Nothing) and not holding.context.completed):
            log.warning(
                "task was lost to another worker or cancelled; its outcome is thrown away", **facts
            )
        elif quiet:
            completed += 1
        else:
            log.info("task completed", **facts)
    if completed:
        log.info("tasks completed", count=completed)
