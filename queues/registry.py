"""Which task types this project can run, and the defaults of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules

if TYPE_CHECKING:
    from queues.worker.context import TaskContext

HandlerFunction = Callable[["TaskContext"], Any]


@dataclass(frozen=True)
class Handler:
    """A function that runs one type of task, and what a task of that type gets by default."""

    type: str
    function: HandlerFunction
    queue: str = "default"
    priority: int = 0
    max_attempts: int | None = None
    timeout: timedelta | None = None
    backoff: timedelta = timedelta(seconds=5)


_handlers: dict[str, Handler] = {}


def handles(
    type: str,
    *,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: timedelta | float | None = None,
    backoff: timedelta | float = 5.0,
) -> Callable[[HandlerFunction], HandlerFunction]:
    """Register the decorated function as the handler of tasks of `type`.

    The function is called with a TaskContext; what it returns (anything JSON can hold) becomes the
    task's result. It may raise Retry, Fail or Snooze (queues.retry); any other exception fails the
    attempt. It can run more than once for a task, so its effects must be idempotent.

    timeout, backoff: seconds or timedelta. Without max_attempts or timeout the queue's apply.
    After a failure the task waits a random time up to backoff * 2 ** attempts, at most an hour.
    Raises ImproperlyConfigured when two functions claim one type.
    """

    def register(function: HandlerFunction) -> HandlerFunction:
        known = _handlers.get(type)
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise ImproperlyConfigured(
                f"Task type {type!r} has two handlers: {_where(known.function)} and "
                f"{_where(function)}. Give one of them another type."
            )
        _handlers[type] = Handler(
            type=type,
            function=function,
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            timeout=None if timeout is None else as_timedelta(timeout),
            backoff=as_timedelta(backoff),
        )
        return function

    return register


def as_timedelta(value: timedelta | float) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def _where(function: HandlerFunction) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def find(type: str) -> Handler | None:
    """The handler of `type`, or None when this project has none."""
    return _handlers.get(type)


def known_types() -> list[str]:
    return sorted(_handlers)


def queue_names() -> set[str]:
    """The queues that handlers name; migrate creates them."""
    return {handler.queue for handler in _handlers.values()}


def autodiscover() -> None:
    """Import the `handlers` module of every installed app."""
    autodiscover_modules("handlers")
