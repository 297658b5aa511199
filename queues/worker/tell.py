"""After outcomes are recorded: telling the log, and the handlers that want to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import structlog

from queues import registry
from queues.claims import Completed, Failure
from queues.worker.holdings import Holding
from queues.worker.outcomes import Nothing, Outcome, Release

log = structlog.get_logger("queues.worker")
LINES_A_BATCH = 20
FAILED = "failed for good"
Batch = Sequence[tuple[Outcome, Holding]]


def tell_finished(batch: Batch, notes: Mapping[str, str]) -> None:
    """Tell the handlers that ask for it which of their tasks have ended for good."""
    if not registry.tells():
        return
    ended: dict[Callable[[Sequence[UUID]], None], list[UUID]] = {}
    for outcome, holding in batch:
        handler = registry.find(holding.task.type)
        if handler is None or handler.on_finished is None:
            continue
        note = notes.get(holding.task.key)
        if note == FAILED or (isinstance(outcome, Completed) and note is None):
            ended.setdefault(handler.on_finished, []).append(holding.task.id)
    for tell, ids in ended.items():
        try:
            tell(ids)
        except Exception:
            log.exception("could not tell that tasks have finished", tasks=len(ids))


def log_batch(batch: Batch, notes: Mapping[str, str]) -> None:
    """A line a task; when many finish at once, a line for all that went well."""
    quiet = len(batch) > LINES_A_BATCH
    completed = 0
    for outcome, holding in batch:
        if quiet and isinstance(outcome, Completed) and holding.task.key not in notes:
            completed += 1
        else:
            _log_one(outcome, holding, notes.get(holding.task.key, ""))
    if completed:
        log.info("tasks completed", count=completed)


def _log_one(outcome: Outcome, holding: Holding, note: str) -> None:
    task = holding.task
    facts = {
        "task": task.key,
        "type": task.type,
        "attempt": task.attempts,
        "ms": round((time.monotonic() - (holding.started or holding.claimed)) * 1000),
    }
    context = holding.context
    if isinstance(outcome, Failure):
        log.warning(
            "task attempt failed",
            **facts,
            error=f"{outcome.error_class}: {outcome.message}"[:300],
            then=note,
        )
    elif isinstance(outcome, Release):
        log.info("task given back", **facts, reason=outcome.reason)
    elif note == "stale" or (
        isinstance(outcome, Nothing) and not (context is not None and context.completed)
    ):
        log.warning(
            "task was lost to another worker or cancelled; its outcome is thrown away", **facts
        )
    else:
        log.info("task completed", **facts)
