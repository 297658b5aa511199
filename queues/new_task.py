"""A task before it is enqueued: its fields, checked here so that the error can say what to mend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from queues import registry
from queues.clean import dumps, has_unstorable
from queues.models import CALENDAR, MAX_JSON_BYTES

TOO_LARGE = f"the payload is larger than {MAX_JSON_BYTES:,} bytes as PostgreSQL stores it."


class EnqueueError(ValueError):
    """The task was refused and nothing was written. The message says what to mend.

    `number`: which of many it was, from 1.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message if number is None else f"task {number}: {message}")
        self.reason = message
        self.number = number

    @classmethod
    def of_database(cls, error: Exception, number: int | None = None) -> EnqueueError:
        """What the database refused: its message and hint as one text for people."""
        diag = getattr(error.__cause__, "diag", None)
        if getattr(diag, "constraint_name", None) == "tasks_payload_at_most_1_mib":
            return cls(TOO_LARGE, number)
        parts = [
            getattr(diag, "message_primary", None) or str(error),
            getattr(diag, "message_hint", None),
        ]
        sentence = ". ".join(part.rstrip(".") for part in parts if part) + "."
        return cls(re.sub(r"^task 1: ", "", sentence), number)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """One task to enqueue; see enqueue() for the meaning of each field."""

    type: str
    payload: Any = None
    queue: str | None = None
    priority: int | None = None
    run_at: datetime | timedelta | str | None = None
    dedupe_key: str | None = None
    after: Sequence[UUID | str] | None = ()
    on_failure: str = "cancel"
    tenant_id: str | None = None
    max_attempts: int | None = None
    timeout: timedelta | float | None = None
    correlation_id: str | None = None

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> NewTask:
        """From an object of JSON. Raises EnqueueError for a key that no task has."""
        known = cls.__slots__
        if unknown := sorted(set(fields) - set(known)):
            raise EnqueueError(f"unknown key {unknown[0]!r}; a task has {', '.join(known)}.")
        if "type" not in fields:
            raise EnqueueError('the key "type" is missing.')
        return cls(**fields)

    def checked(self) -> dict[str, Any]:
        """The fields as enqueue_tasks takes them, without those left to the database's defaults.

        A default comes from the type's handler, where this project has one. The payload is JSON
        text; all else is a plain value. Raises EnqueueError.
        """
        handler = registry.find(self.type) if isinstance(self.type, str) else None
        timeout = self.timeout
        if timeout is None and handler:
            timeout = handler.timeout
        fields = {
            "type": _text("type", self.type, required=True),
            "payload": payload_text(self.payload),
            "queue": _text("queue", self.queue) or (handler.queue if handler else "default"),
            "priority": _number("priority", self.priority, -100, 100),
            "run_at": _moment(self.run_at),
            "dedupe_key": _text("dedupe_key", self.dedupe_key),
            "after": _ids(self.after),
            "on_failure": self.on_failure,
            "tenant_id": _text("tenant_id", self.tenant_id),
            "max_attempts": _number("max_attempts", self.max_attempts, 1, 100),
            "timeout": _seconds(timeout),
            "correlation_id": _text("correlation_id", self.correlation_id),
        }
        if self.on_failure not in ("cancel", "run"):
            raise EnqueueError(f'on_failure is "cancel" or "run", not {self.on_failure!r}.')
        if handler:
            fields["priority"] = fields["priority"] or handler.priority
            fields["max_attempts"] = fields["max_attempts"] or handler.max_attempts
            if self.priority is not None:
                fields["priority"] = self.priority
        return {key: value for key, value in fields.items() if value is not None}


def _text(name: str, value: Any, *, required: bool = False) -> str | None:
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value.strip():
        raise EnqueueError(f"{name} must be a text that is not empty, not {value!r}.")
    if len(value) > 200:
        raise EnqueueError(f"{name} is {len(value)} characters long; the most is 200.")
    if has_unstorable(value):
        raise EnqueueError(f"{name} holds a NUL character or half a surrogate pair: remove it.")
    return value


def _number(name: str, value: Any, low: int, high: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise EnqueueError(f"{name} is a whole number from {low} to {high}, not {value!r}.")
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds >= 1e-6:
        raise EnqueueError(f"timeout is a number of seconds above 0, not {value!r}.")
    if seconds > 365 * 86400:
        raise EnqueueError(f"timeout is {seconds} seconds; the most is a year.")
    return float(seconds)


def _moment(value: Any) -> datetime | timedelta | None:
    """A moment, or a delay that the database counts from its own clock."""
    if value is None or isinstance(value, timedelta):
        return value
    moment = value
    if isinstance(value, str):
        try:
            moment = parse_datetime(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise EnqueueError(f'run_at is a moment such as "2026-12-24T18:00:00Z", not {value!r}.')
    if not CALENDAR[0].year < moment.year < CALENDAR[1].year:
        raise EnqueueError(f"run_at lies in the year {moment.year}: give one from 1971 to 9998.")
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def _ids(value: Any) -> list[UUID] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise EnqueueError(f"after is a list of task ids, not {value!r}.")
    try:
        return [item if isinstance(item, UUID) else UUID(item) for item in value] or None
    except (ValueError, TypeError, AttributeError) as error:
        raise EnqueueError(f"after holds something that is no task id: {value!r}.") from error


def payload_text(value: Any, number: int | None = None) -> str:
    """The payload as JSON text. Raises EnqueueError (with `number`) when PostgreSQL cannot hold it."""
    try:
        text = dumps({} if value is None else value)
    except (TypeError, ValueError, RecursionError) as error:
        raise EnqueueError(f"the payload cannot be written as JSON: {error}.", number) from error
    if has_unstorable(text) or ("\\u0000" in text and _holds_nul(value)):
        raise EnqueueError(
            "the payload holds a NUL character or half a surrogate pair, which PostgreSQL cannot "
            "store: remove it.",
            number,
        )
    if len(text) > MAX_JSON_BYTES or len(text.encode()) > MAX_JSON_BYTES:
        raise EnqueueError(
            f"the payload is {len(text.encode()):,} bytes; the most is {MAX_JSON_BYTES:,}. "
            "Put large data in a file and pass its name.",
            number,
        )
    return text


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(_holds_nul(item) for item in value)
