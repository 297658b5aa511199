"""What a handler may raise to say how its attempt ended. Anything else it raises is a failure."""

from __future__ import annotations

from datetime import timedelta

from queues.registry import as_timedelta


class Retry(Exception):
    """The attempt failed; try again after this long (seconds or timedelta) if attempts are left."""

    def __init__(self, message: str, *, after: timedelta | float | None = None) -> None:
        super().__init__(message)
        self.after = None if after is None else as_timedelta(after)


class Fail(Exception):
    """The task can never succeed: it fails for good, whatever attempts are left."""


class Snooze(Exception):
    """Not now: run it again after this long. No attempt is charged, nothing counts as failed."""

    def __init__(self, after: timedelta | float, reason: str = "") -> None:
        super().__init__(reason or f"snoozed for {after}")
        self.after = as_timedelta(after)


class LostLease(Exception):
    """The task is no longer this worker's: it was cancelled, rescued or settled by another."""


class TaskTimeout(Exception):
    """The task has run past its timeout."""
