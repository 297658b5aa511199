"""The task list's filters and its order.

Each status has the order that people look for in it, and an index that gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import QueryDict

from queues.clean import storable_text
from queues.console.keyset import Order
from queues.lookup import UNREAD
from queues.models import AnyTask, ArchivedTask, Task

# Ascending or descending over the fields, by status; "" is every status.
ORDERS: dict[str, Order] = {
    "": (("id",), True),
    "blocked": (("id",), True),
    "pending": (("id",), True),
    "scheduled": (("run_at", "id"), False),
    "processing": (("started_at", "id"), False),
    "completed": (("completed_at", "id"), True),
    "failed": (("completed_at", "id"), True),
    "cancelled": (("completed_at", "id"), True),
}
ARCHIVE_ORDER: Order = (("completed_at", "id"), True)


@dataclass(frozen=True)
class TaskFilter:
    """What the URL asks for. Unknown values are kept out and named in `problems`.

    Lists show either the table of tasks or the archive, each in an order that its own indexes give;
    an id is looked for in both.
    """

    status: str = ""
    queue: str = ""
    type: str = ""
    worker: str = ""
    id: UUID | None = None
    archive: bool = False
    problems: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: QueryDict) -> TaskFilter:
        problems = []
        status = query.get("status", "")
        archive = bool(query.get("archive"))
        if archive and status in Task.LIVE:
            problems.append(f"No archived task is {status}; all are shown.")
            status = ""
        if status and status not in Task.Status.values:
            problems.append(f"There is no status {status!r}; all are shown.")
            status = ""
        id: UUID | None = None
        if text := query.get("id", "").strip():
            try:
                id = UUID(text)
            except ValueError:
                problems.append(f"{text!r} is no task id; give it whole.")
        names = {name: storable_text(query.get(name, "")) for name in ("queue", "type", "worker")}
        return cls(status=status, id=id, archive=archive, problems=tuple(problems), **names)

    def rows(self) -> QuerySet[Any]:
        model = AnyTask if self.id else ArchivedTask if self.archive else Task
        rows: QuerySet[Any] = model._default_manager.defer(*UNREAD)
        for field, value in {
            "status": self.status,
            "queue_id": self.queue,
            "type": self.type,
            "worker_id": self.worker,
            "id": self.id,
        }.items():
            if value:
                rows = rows.filter(**{field: value})
        return rows

    @property
    def order(self) -> Order:
        return ARCHIVE_ORDER if self.archive and not self.id else ORDERS[self.status]

    @property
    def statuses(self) -> list[str]:
        return [str(s) for s in (Task.FINAL if self.archive else Task.Status.values)]

    @property
    def is_empty(self) -> bool:
        return not (self.status or self.queue or self.type or self.worker or self.id)
