"""Which task types this project can run, and the defaults of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules

HandlerFunction = Callable[..., Any]
LARGEST_BATCH = 500
COROUTINES = 100


@dataclass(frozen=True)
class Handler:
    """A function that runs one type of task, and what a task of that type gets by default.

    batch: how many tasks one call takes at most; more than 1 makes it a batch handler.
    on_finished is told the ids of those tasks whose final outcome this worker has just recorded.
    """

    type: str
    function: HandlerFunction
    queue: str = "default"
    priority: int = 0
    max_attempts: int | None = None
    timeout: timedelta | None = None
    backoff: timedelta = timedelta(seconds=5)
    batch: int = 1
    on_finished: Callable[[Sequence[UUID]], None] | None = None
    is_coroutine: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_coroutine", iscoroutinefunction(self.function))
        if not 1 <= self.batch <= LARGEST_BATCH:
            raise ImproperlyConfigured(
                f"{self.type!r}: batch is a number from 1 to {LARGEST_BATCH}."
            )
        if self.batch > 1 and self.is_coroutine:
            raise ImproperlyConfigured(f"{self.type!r}: a batch handler is a plain function.")


_handlers: dict[str, Handler] = {}


def handles(
    type: str,
    *,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: timedelta | float | None = None,
    backoff: timedelta | float = 5.0,
    batch: int = 1,
) -> Callable[[HandlerFunction], HandlerFunction]:
    """Register the decorated function as the handler of tasks of `type`.

    The function is called with a TaskContext; what it returns (anything JSON can hold) becomes the
    task's result. It may raise Retry, Fail or Snooze (queues.retry); any other exception fails the
    attempt. It can run more than once for a task, so its effects must be idempotent.

    timeout, backoff: seconds or timedelta. Without max_attempts or timeout the queue's apply.
    After a failure the task waits a random time up to backoff * 2 ** attempts, at most an hour.
    batch: the function takes a list of up to so many TaskContexts and returns None, or a list with a
    result or an exception for each. An `async def` function runs on the worker's event loop, beside
    up to COROUTINES others.
    Raises ImproperlyConfigured when two functions claim one type.
    """

    def decorate(function: HandlerFunction) -> HandlerFunction:
        register(
            Handler(
                type=type,
                function=function,
                queue=queue,
                priority=priority,
                max_attempts=max_attempts,
                timeout=None if timeout is None else as_timedelta(timeout),
                backoff=as_timedelta(backoff),
                batch=batch,
            )
        )
        return function

    return decorate


def register(handler: Handler) -> None:
    """Make a handler known. Raises ImproperlyConfigured when its type has another one."""
    known = _handlers.get(handler.type)
    if known is not None and known.function.__qualname__ != handler.function.__qualname__:
        raise ImproperlyConfigured(
            f"Task type {handler.type!r} has two handlers: {_where(known.function)} and "
            f"{_where(handler.function)}. Give one of them another type."
        )
    _handlers[handler.type] = handler


def as_timedelta(value: timedelta | float) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def _where(function: HandlerFunction) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def find(type: str) -> Handler | None:
    """The handler of `type`, or None when this project has none."""
    return _handlers.get(type)


def share(type: str) -> float:
    """How much of a thread a task of this type takes: 0 for a coroutine, which takes none."""
    handler = _handlers.get(type)
    if handler is None:
        return 1.0
    return 0.0 if handler.is_coroutine else 1 / handler.batch


def largest_batch() -> int:
    """The most tasks that one call of any handler takes."""
    return max((handler.batch for handler in _handlers.values()), default=1)


def tells() -> bool:
    """Whether any handler wants to know which of its tasks have ended."""
    return any(handler.on_finished for handler in _handlers.values())


def handlers() -> list[Handler]:
    return list(_handlers.values())


def known_types() -> list[str]:
    return sorted(_handlers)


def queue_names() -> set[str]:
    """The queues that handlers name; migrate creates them."""
    return {handler.queue for handler in _handlers.values()}


def autodiscover() -> None:
    """Import the modules `handlers` and `tasks` of every installed app."""
    autodiscover_modules("handlers", "tasks")
