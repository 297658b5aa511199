"""What passes between the queue and its workers: a claimed task, and the reports on it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

_read_json = json.JSONDecoder().decode
Outcome = Literal["recorded", "already", "stale"]


class ClaimedTask(NamedTuple):
    """What a worker needs of a task it holds. The id is text: most workers only hand it back.

    `suspect`: a process died while it ran, or it lost its worker twice: it is run on its own.
    """

    key: str
    lease: int
    queue: str
    type: str
    payload_text: str
    attempts: int
    max_attempts: int
    suspect: bool
    timeout_seconds: float
    tenant_id: str | None
    correlation_id: str | None

    @property
    def id(self) -> UUID:
        return UUID(self.key)

    @property
    def timeout(self) -> timedelta:
        return timedelta(seconds=self.timeout_seconds)

    @property
    def payload(self) -> Any:
        """The payload, read anew. Raises ValueError or RecursionError for JSON beyond Python's
        bounds, which PostgreSQL takes: it must fail its own task only, not the claim."""
        return _read_json(self.payload_text)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt. Without `delay` it waits up to backoff * 2 ** attempts, at random.

    `lost`: the process that ran it died; a task that loses its process three times fails for good.
    """

    id: UUID | str
    lease: int
    error_class: str
    message: str
    traceback: str = ""
    fingerprint: str = ""
    error_module: str | None = None
    delay: timedelta | None = None
    backoff: timedelta = timedelta(seconds=5)
    final: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Success:
    id: UUID
    lease: int
    result: Any = None
    output_location: str | None = None


class Completed(NamedTuple):
    """A success as it is recorded: the id as text, the result as JSON text."""

    key: str
    lease: int
    result: str | None = None
    output_location: str | None = None

    @property
    def id(self) -> UUID:
        return UUID(self.key)


class Failed(NamedTuple):
    outcome: Outcome
    status: str
    run_at: datetime


@dataclass(frozen=True, slots=True)
class Pulse:
    """The answer to a heartbeat. `lost`: (id as text, lease) of what the worker holds no more."""

    status: str
    lost: set[tuple[str, int]] = field(default_factory=set)


def columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows turned into as many lists as they are wide, also when there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
