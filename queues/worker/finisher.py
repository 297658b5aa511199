"""Recording outcomes in batches: one round trip for what finished within a few milliseconds."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    connection,
    connections,
)

from queues import claims
from queues.claims import Completed, Failure
from queues.worker.faults import RecurringFault
from queues.worker.holdings import Holding, Holdings
from queues.worker.outcomes import Nothing, Outcome, Release
from queues.worker.tell import FAILED, log_batch, tell_finished

log = structlog.get_logger("queues.worker")
BATCH = 500
GATHER_SECONDS = 0.01
GATHER_STEP_SECONDS = 0.002
BAD = "BadOutcome"


class Finisher:
    """Takes outcomes from executors and records each exactly once, whatever the database does."""

    def __init__(self, holdings: Holdings, on_settled: Callable[[], None] | None = None) -> None:
        self.holdings = holdings
        self._on_settled = on_settled
        self._outcomes: queue.SimpleQueue[tuple[Outcome, Holding] | None] = queue.SimpleQueue()
        self._abandoned = threading.Event()
        self._fault = RecurringFault("cannot record outcomes, trying again")

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
        """Wait for an outcome, then take those that follow within GATHER_SECONDS, unless no more can
        come: all that is held has its outcome. Empty: closed."""
        first = self._outcomes.get()
        if first is None:
            return []
        deadline = time.monotonic() + GATHER_SECONDS
        while self._outcomes.qsize() + 1 < min(BATCH, self.holdings.count()):
            if time.monotonic() >= deadline:
                break
            time.sleep(GATHER_STEP_SECONDS)
        batch = [first]
        while len(batch) < BATCH:
            try:
                more = self._outcomes.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._outcomes.put(None)
                break
            batch.append(more)
        return batch

    def _settle(self, batch: list[tuple[Outcome, Holding]]) -> None:
        notes: dict[str, str] = {}
        for kind in (Completed, Failure, Release):
            if chosen := [outcome for outcome, _ in batch if isinstance(outcome, kind)]:
                notes |= self._record(chosen)
        if self._abandoned.is_set():
            log.warning("not recorded before the end; these run again", tasks=len(batch))
            return
        tell_finished(batch, notes)
        self.holdings.settled(holding for _, holding in batch)
        if self._on_settled:
            self._on_settled()
        log_batch(batch, notes)

    def _record(self, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """Record outcomes of one kind, through broken connections and around a bad one. What is
        worth telling of each, by its id as text: no word of a success that was recorded."""
        pause = 0.1
        while not self._abandoned.is_set():
            try:
                notes = _write(outcomes)
                self.holdings.recording = True
                return notes
            except (DataError, IntegrityError, ValueError, TypeError, OverflowError) as error:
                if len(outcomes) > 1:
                    notes = {}
                    for outcome in outcomes:
                        notes |= self._record([outcome])
                    return notes
                outcomes = [_unrecordable(outcomes[0], error)]
            except (DatabaseError, InterfaceError) as error:
                # Whatever else stops us, such as a missing function, is no outcome's fault. Until it
                # is mended nothing more is claimed: it could not be recorded either.
                self.holdings.recording = False
                self._fault.report(error)
                connection.close()
                self._abandoned.wait(pause)
                pause = min(pause * 2, 5.0)
        return {}


def _unrecordable(outcome: Outcome, error: Exception) -> Failure:
    """What is recorded in place of an outcome that the database refuses."""
    if isinstance(outcome, Nothing) or (
        isinstance(outcome, Failure) and outcome.error_class == BAD
    ):
        raise error
    message = f"Its outcome could not be recorded: {error}"
    return Failure(outcome.id, outcome.lease, BAD, message, fingerprint=BAD, final=True)


def _write(outcomes: Sequence[Outcome]) -> dict[str, str]:
    first = outcomes[0]
    if isinstance(first, Completed):
        return dict(claims.record_completed([o for o in outcomes if isinstance(o, Completed)]))
    if isinstance(first, Failure):
        answers = claims.fail_tasks([o for o in outcomes if isinstance(o, Failure)])
        return {str(id): _after_failure(a.outcome, a.status, a.run_at) for id, a in answers.items()}
    notes: dict[str, str] = {}
    for o in outcomes:
        if isinstance(o, Release):
            answer = claims.release_tasks([(o.key, o.lease)], delay=o.delay, reason=o.reason)
            notes |= {str(id): outcome for id, outcome in answer.items()}
    return notes


def _after_failure(outcome: str, status: str, run_at: datetime) -> str:
    if outcome != "recorded":
        return outcome
    return FAILED if status == "failed" else f"next try {run_at:%H:%M:%S}"
