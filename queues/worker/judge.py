"""Calling a handler and turning whatever happens into outcomes. Nothing here raises."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import cast

from queues.claims import ClaimedTask, Completed, Failure
from queues.clean import dumps, storable_json, storable_text
from queues.models import MAX_JSON_BYTES
from queues.registry import Handler
from queues.retry import Fail, LostLease, Retry, Snooze, TaskTimeout
from queues.worker.context import TaskContext
from queues.worker.holdings import Holding
from queues.worker.outcomes import Nothing, Outcome, Release

NO_HANDLER_DELAY = timedelta(seconds=15)
LONGEST_TEXT = 100_000
NO_DELAY = timedelta(0)
INTERRUPTED = "Another task of its batch was lost or cancelled; it runs again."
NOTHING = Nothing()


def call(holding: Holding, handler: Handler) -> Outcome:
    """Call the handler of one task."""
    context = holding.begin()
    try:
        result = handler.function(context)
    except BaseException as error:
        # Also SystemExit and the like: a handler must not be able to end its executor thread.
        return of_error(context, error, handler)
    return of_result(context, result)


async def await_call(holding: Holding, handler: Handler) -> Outcome:
    """The same for a coroutine. It is cancelled at its timeout, or when its task is lost."""
    context = holding.begin()
    limit = asyncio.timeout(holding.task.timeout_seconds)
    try:
        async with limit:
            result = await cast(Awaitable[object], handler.function(context))
    except BaseException as error:
        if limit.expired() and isinstance(error, TimeoutError):
            return of_error(context, TaskTimeout(_ran_too_long(holding.task)), handler)
        return of_error(context, error, handler)
    return of_result(context, result)


def call_many(holdings: Sequence[Holding], handler: Handler) -> list[Outcome]:
    """Call a batch handler once for many tasks. It gives a list with a result or an exception for
    each, or nothing when all went well; what it raises is the failure of all."""
    contexts = [holding.begin() for holding in holdings]
    try:
        results = handler.function(contexts)
        if results is None:
            results = [None] * len(contexts)
        if not isinstance(results, list | tuple) or len(results) != len(contexts):
            raise TypeError(
                f"the batch handler was given {len(contexts)} tasks and returned "
                f"{_shape(results)}: return None or a list with a result or exception for each"
            )
    except LostLease:
        # One of them is another's by now. The others were interrupted for it: they run again.
        return [
            NOTHING if c.lost else Release(c.task.key, c.task.lease, NO_DELAY, INTERRUPTED)
            for c in contexts
        ]
    except BaseException as error:
        return [of_error(context, error, handler) for context in contexts]
    return [
        of_error(context, result, handler)
        if isinstance(result, BaseException)
        else of_result(context, result)
        for context, result in zip(contexts, results, strict=True)
    ]


def of_result(context: TaskContext, result: object) -> Outcome:
    """The outcome of a handler that returned."""
    task = context.task
    if context.completed:
        return NOTHING
    if result is None:
        text = None
    else:
        try:
            text = dumps(storable_json(result))
        except (TypeError, ValueError, RecursionError) as error:
            message = f"The handler returned what JSON cannot hold: {text_of(error)}"
            return bad(task, "BadResult", message)
        if len(text) > MAX_JSON_BYTES or len(text.encode()) > MAX_JSON_BYTES:
            return bad(
                task,
                "BadResult",
                f"The handler returned {len(text.encode()):,} bytes; the most is "
                f"{MAX_JSON_BYTES:,}. Save a file and return its name.",
            )
    output = context.output_location
    return Completed(task.key, task.lease, text, output and storable_text(output))


def of_error(context: TaskContext, error: BaseException, handler: Handler) -> Outcome:
    """The outcome of a handler that raised."""
    task = context.task
    if isinstance(error, LostLease) or context.completed:
        return NOTHING
    if context.lost and isinstance(error, asyncio.CancelledError):
        return NOTHING
    if isinstance(error, Snooze):
        return Release(task.key, task.lease, error.after, text_of(error))
    if context.bad_payload is not None and error is context.bad_payload:
        return bad(task, "BadPayload", f"The payload cannot be read: {text_of(error)}")
    return Failure(
        task.id,
        task.lease,
        type(error).__qualname__,
        text_of(error),
        _traceback(error),
        fingerprint(error),
        type(error).__module__,
        delay=error.after if isinstance(error, Retry) else None,
        backoff=handler.backoff,
        final=isinstance(error, Fail),
    )


def overrun(task: ClaimedTask, handler: Handler | None) -> Failure:
    """The failure of a task whose handler goes on after its timeout."""
    message = f"{_ran_too_long(task)}, and its handler did not stop: its process was ended"
    backoff = handler.backoff if handler else timedelta(seconds=5)
    return Failure(
        task.id,
        task.lease,
        TaskTimeout.__qualname__,
        message,
        fingerprint="TaskTimeout: did not stop",
        error_module=TaskTimeout.__module__,
        backoff=backoff,
    )


def no_handler(task: ClaimedTask) -> Release:
    reason = f"No handler for the type {task.type!r} in this worker; waiting for one that has it."
    return Release(task.key, task.lease, NO_HANDLER_DELAY, reason)


def bad(task: ClaimedTask, kind: str, message: str) -> Failure:
    """A failure that no retry mends."""
    return Failure(task.id, task.lease, kind, message, fingerprint=kind, final=True)


def text_of(error: BaseException) -> str:
    """The message of an exception, also of one whose own __str__ fails."""
    try:
        return str(error)[:LONGEST_TEXT]
    except Exception as inner:
        return f"(its message cannot be read: {type(inner).__name__})"


def fingerprint(error: BaseException) -> str:
    """What failures of one cause share: class, message without its varying parts, last own frame."""
    message = re.sub(
        r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"", "*", text_of(error)
    )
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].name}" if frames else ""
    return f"{type(error).__qualname__}: {message[:120]} @ {where}"[:200]


def _traceback(error: BaseException) -> str:
    """The traceback from the handler's own frame on."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        return "".join(traceback.format_tb(frames))


def _ran_too_long(task: ClaimedTask) -> str:
    return f"ran longer than its timeout of {task.timeout}"


def _shape(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, list | tuple) else type(value).__name__
