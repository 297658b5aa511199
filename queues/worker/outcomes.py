"""How an attempt can end, as the executor tells the finisher."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from queues.claims import Completed, Failure


@dataclass(frozen=True, slots=True)
class Release:
    """Give the task back: its attempt is not charged."""

    key: str
    lease: int
    delay: timedelta
    reason: str

    @property
    def id(self) -> UUID:
        return UUID(self.key)


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to record: the handler completed its task itself, or lost it."""


Outcome = Completed | Failure | Release | Nothing
