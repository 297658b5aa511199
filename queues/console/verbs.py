"""The verbs that the console and the admin offer on tasks, and what each asks before it acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queues import operations
from queues.models import Operation

WAITING = ("blocked", "scheduled", "pending")


@dataclass(frozen=True)
class Verb:
    """One verb: on which tasks, who may, and in which words.

    legal: the statuses it acts on; the functions in the database decide again, on the locked row.
    title: around the number of tasks. button: on a task's page; it ends in "…" where the verb always
    asks for confirmation. field: a value that the confirmation asks for.
    """

    act: Callable[..., Operation]
    legal: tuple[str, ...]
    permission: str
    past: str
    title: str
    button: str
    field: str = ""
    needs_reason: bool = False
    takes_leases: bool = False
    on_archive: bool = False

    @property
    def operation(self) -> str:
        """What the operations call it."""
        return self.act.__name__.replace("_", " ")

    @property
    def asks(self) -> bool:
        return self.button.endswith("…")

    @property
    def on_selection(self) -> str:
        """The words of its button on a list."""
        return self.title.format("selected") + "…" * self.asks


VERBS = {
    "retry": Verb(
        operations.retry,
        ("failed", "cancelled"),
        "queue.retry_task",
        "retried",
        "Retry {}",
        "Retry",
        on_archive=True,
    ),
    "requeue": Verb(
        operations.requeue,
        ("scheduled", "processing"),
        "queue.requeue_task",
        "requeued",
        "Requeue {}",
        "Run now",
        takes_leases=True,
    ),
    "rescue": Verb(
        operations.rescue,
        ("processing",),
        "queue.requeue_task",
        "rescued",
        "Rescue {}",
        "Rescue",
        takes_leases=True,
    ),
    "release": Verb(
        operations.release,
        ("processing",),
        "queue.release_task",
        "released",
        "Release {}",
        "Release…",
        needs_reason=True,
        takes_leases=True,
    ),
    "set_priority": Verb(
        operations.set_priority,
        WAITING,
        "queue.set_priority_task",
        "reprioritised",
        "Set the priority of {}",
        "Set priority…",
        field="priority",
    ),
    "move": Verb(
        operations.move,
        WAITING,
        "queue.move_task",
        "moved",
        "Move {} to another queue",
        "Move…",
        field="queue",
    ),
    "run_again": Verb(
        operations.run_again,
        ("completed",),
        "queue.run_again_task",
        "run again",
        "Run {} again",
        "Run again…",
        on_archive=True,
    ),
    "cancel": Verb(
        operations.cancel,
        ("blocked", "scheduled", "pending", "processing"),
        "queue.cancel_task",
        "cancelled",
        "Cancel {}",
        "Cancel task…",
    ),
}
ON_STUCK_PAGE = "rescue"
ON_ANY_STATUS = ("retry", "requeue", "cancel")


def offered(may: Callable[[str], bool], status: str, *, archive: bool = False) -> dict[str, Verb]:
    """The verbs that this person may use on tasks of this status; "" is any, where few are offered.

    archive: the tasks are archived, which only some verbs reach.
    """
    return {
        name: verb
        for name, verb in VERBS.items()
        if name != ON_STUCK_PAGE
        and may(verb.permission)
        and (verb.on_archive or not archive)
        and (status in verb.legal if status else archive or name in ON_ANY_STATUS)
    }
