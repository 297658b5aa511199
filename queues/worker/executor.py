"""Running one task: from its handler's call to the outcome that will be recorded."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import connections

from queues import registry
from queues.claims import ClaimedTask, Failure, Success
from queues.clean import dumps, storable_json
from queues.models import MAX_JSON_BYTES
from queues.retry import Fail, LostLease, Retry, Snooze
from queues.worker.holdings import Holding, Holdings

log = structlog.get_logger("queues.worker")
NO_HANDLER_DELAY = timedelta(seconds=15)
LONGEST_TEXT = 100_000


@dataclass(frozen=True, slots=True)
class Release:
    """Give the task back: its attempt is not charged."""

    id: UUID
    lease: int
    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to record: the handler completed its task itself, or lost it."""

    id: UUID


Outcome = Success | Failure | Release | Nothing


def work(holdings: Holdings, report: Callable[[Outcome, Holding], None]) -> None:
    """The life of an executor thread: run what is buffered until the book is closed."""
    try:
        while holding := holdings.next():
            for connection in connections.all(initialized_only=True):
                connection.close_if_unusable_or_obsolete()
            outcome = run(holding)
            _leave_no_transaction(holding)
            holdings.handler_returned(holding)
            report(outcome, holding)
    finally:
        connections.close_all()


def _leave_no_transaction(holding: Holding) -> None:
    """A handler that turned autocommit off and forgot must not take the next task with it."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and not connection.get_autocommit():
            log.error("handler left a transaction open; rolled back", type=holding.task.type)
            connection.close()


def run(holding: Holding) -> Outcome:
    """Call the handler and turn whatever happens into an outcome. Never raises."""
    task, context = holding.task, holding.context
    handler = registry.find(task.type)
    if handler is None:
        reason = (
            f"No handler for the type {task.type!r} in this worker; waiting for one that has it."
        )
        return Release(task.id, task.lease, NO_HANDLER_DELAY, reason)
    try:
        _ = context.payload
    except (ValueError, RecursionError) as error:
        return _bad(task, "BadPayload", f"The payload cannot be read: {text_of(error)}")
    try:
        result = handler.function(context)
    except LostLease:
        return Nothing(task.id)
    except Snooze as snooze:
        return Release(task.id, task.lease, snooze.after, text_of(snooze))
    except BaseException as error:
        # Also SystemExit and the like: a handler must not be able to end its executor thread.
        return Nothing(task.id) if context.completed else _failure(holding, error, handler)
    if context.completed:
        return Nothing(task.id)
    return _success(holding, result)


def _success(holding: Holding, result: object) -> Outcome:
    task = holding.task
    try:
        size = len(dumps(storable_json(result)).encode())
    except (TypeError, ValueError, RecursionError) as error:
        message = f"The handler returned what JSON cannot hold: {text_of(error)}"
    else:
        if size <= MAX_JSON_BYTES:
            return Success(task.id, task.lease, result, holding.context.output_location)
        message = (
            f"The handler returned {size:,} bytes; the most is {MAX_JSON_BYTES:,}. "
            "Save a file and return its name."
        )
    return _bad(task, "BadResult", message)


def _bad(task: ClaimedTask, kind: str, message: str) -> Failure:
    """A failure that no retry mends."""
    return Failure(task.id, task.lease, kind, message, fingerprint=kind, final=True)


def text_of(error: BaseException) -> str:
    """The message of an exception, also of one whose own __str__ fails."""
    try:
        return str(error)[:LONGEST_TEXT]
    except Exception as inner:
        return f"(its message cannot be read: {type(inner).__name__})"


def _failure(holding: Holding, error: BaseException, handler: registry.Handler) -> Failure:
    task = holding.task
    return Failure(
        task.id,
        task.lease,
        type(error).__qualname__,
        text_of(error),
        _traceback(error),
        fingerprint(error),
        delay=error.after if isinstance(error, Retry) else None,
        backoff=handler.backoff,
        final=isinstance(error, Fail),
    )


def _traceback(error: BaseException) -> str:
    """The traceback from the handler's own frame on."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        return "".join(traceback.format_tb(frames))


def fingerprint(error: BaseException) -> str:
    """What failures of one cause share: class, message without its varying parts, last own frame."""
    message = re.sub(
        r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"", "*", text_of(error)
    )
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].name}" if frames else ""
    return f"{type(error).__qualname__}: {message[:120]} @ {where}"[:200]
