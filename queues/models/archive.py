from __future__ import annotations

from django.db import models

from queues.models.queue import Queue
from queues.models.task import TaskFields


class ArchivedTask(TaskFields):
    """A finished task that left `tasks` (archive_finished.sql), as it was.

    The table is partitioned by the UTC day of completed_at and keyed by (id, completed_at); its
    migration makes it. A column that TaskFields gains or loses is altered in both tables.
    """

    # The queue may be deleted while its tasks are archived.
    queue: models.ForeignKey[Queue | str, Queue] = models.ForeignKey(
        Queue,
        models.DO_NOTHING,
        db_column="queue",
        db_default="default",
        db_constraint=False,
        db_index=False,
        related_name="+",
    )

    class Meta:
        db_table = "tasks_archive"
        ordering = ["-completed_at", "-id"]


class AnyTask(TaskFields):
    """A task wherever it is: the view over `tasks` and `tasks_archive`, to be read only.

    A task that moves meanwhile is seen once by each statement, never twice and never missed.
    """

    queue: models.ForeignKey[Queue | str, Queue] = models.ForeignKey(
        Queue, models.DO_NOTHING, db_column="queue", db_constraint=False, related_name="+"
    )
    archived = models.BooleanField()

    class Meta:
        db_table = "all_tasks"
        managed = False
        default_permissions = ()
        ordering = ["-id"]
