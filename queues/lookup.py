"""Finding tasks by id wherever they are: in the table of tasks first, which is one quick look, and only
then in the archive, where each day's partition is asked."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from queues.models import AnyTask, Task, TaskFields

UNREAD = ("payload", "result", "errors")


def find_task(id: UUID) -> TaskFields | None:
    """The task with this id, live or archived. An id given twice by a caller means the later task."""
    live = Task.objects.select_related("queue").filter(pk=id).first()
    # The second look covers both tables: the task may have come back in between.
    return live or AnyTask.objects.filter(pk=id).order_by("archived", "-completed_at").first()


def find_tasks(ids: Collection[UUID]) -> dict[UUID, TaskFields]:
    """Those of these tasks that exist, without their large columns."""
    found: dict[UUID, TaskFields] = {}
    found.update(Task.objects.defer(*UNREAD).in_bulk(ids))
    if missing := [id for id in ids if id not in found]:
        rows = AnyTask.objects.defer(*UNREAD).filter(pk__in=missing)
        for task in rows.order_by("archived", "-completed_at"):
            found.setdefault(task.id, task)
    return found
