"""Guards: an app's reasons why an operator's verb must leave some of its tasks alone.

An app adds its own with `guards.register`. They are asked in the transaction of the act
(operations.py), so what a guard locks stays as it was judged until the act has committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

# The operations that make a task run once more.
GUARDED = ("retry", "requeue", "rescue", "run again")

# Of an operation's verb and the tasks' ids; gives the reason for each task to be left alone.
Guard = Callable[[str, Sequence[UUID]], Mapping[UUID, str]]


@dataclass(frozen=True)
class Refusal:
    """Why a task is left alone ("its order was …"), and the permission to have it done anyway."""

    reason: str
    permission: str


_guards: list[tuple[Guard, str]] = []


def register(guard: Guard, *, override: str) -> None:
    """Add a guard; who holds the permission `override` may set it aside, with a reason."""
    _guards.append((guard, override))


def refusals(verb: str, ids: Sequence[UUID]) -> dict[UUID, Refusal]:
    """Those of these tasks that the operation must leave alone."""
    found: dict[UUID, Refusal] = {}
    if verb in GUARDED:
        for guard, permission in _guards:
            for id, reason in guard(verb, ids).items():
                found.setdefault(id, Refusal(reason, permission))
    return found


def overrides(may: Callable[[str], bool]) -> frozenset[str]:
    """The permissions to set guards aside that this person holds."""
    return frozenset(permission for _, permission in _guards if may(permission))
