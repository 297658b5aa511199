from __future__ import annotations

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce

from queues.models.queue import Queue
from queues.models.shared import DatabaseClock, NewTaskId, TolerantDecoder


class TaskFields(models.Model):
    """The columns of a task, live (Task) or archived (ArchivedTask)."""

    class Status(models.TextChoices):
        BLOCKED = "blocked"
        SCHEDULED = "scheduled"
        PENDING = "pending"
        PROCESSING = "processing"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

    LIVE = (Status.BLOCKED, Status.SCHEDULED, Status.PENDING, Status.PROCESSING)
    FINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    type = models.TextField()
    payload = models.JSONField(
        blank=True, decoder=TolerantDecoder, db_default=Value({}, output_field=models.JSONField())
    )
    status = models.TextField(choices=Status.choices, db_default=Status.PENDING)
    priority = models.SmallIntegerField(db_default=0, help_text="-100 to 100; higher runs first.")
    tenant_id = models.TextField(null=True, blank=True)
    run_at = models.DateTimeField(db_default=DatabaseClock())
    attempts = models.IntegerField(db_default=0)
    max_attempts = models.IntegerField(db_default=5)
    lease = models.BigIntegerField(db_default=0, help_text="+1 at each claim, never down.")
    worker_id = models.TextField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=DatabaseClock())
    updated_at = models.DateTimeField(db_default=DatabaseClock())
    timeout = models.DurationField(null=True, blank=True, help_text="Empty: the queue's default.")
    result = models.JSONField(null=True, blank=True, decoder=TolerantDecoder)
    output_location = models.TextField(null=True, blank=True)
    error = models.TextField(null=True, blank=True)
    errors = models.JSONField(blank=True, db_default=Value([], output_field=models.JSONField()))
    error_fingerprint = models.TextField(null=True, blank=True)
    progress = models.SmallIntegerField(null=True, blank=True, help_text="Percent.")
    progress_note = models.TextField(null=True, blank=True)
    waits_on = models.IntegerField(db_default=0)
    dedupe_key = models.TextField(null=True, blank=True)
    round = models.BigIntegerField(db_default=0)
    correlation_id = models.TextField(null=True, blank=True)
    lost = models.SmallIntegerField(db_default=0, help_text="Times its worker vanished.")
    queue: models.ForeignKey[Queue | str, Queue]
    queue_id: str

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Task(TaskFields):
    """One piece of background work, from enqueue to its final outcome."""

    # A trigger guards it (refuse_unknown_queue.sql).
    queue: models.ForeignKey[Queue | str, Queue] = models.ForeignKey(
        Queue,
        models.PROTECT,
        db_column="queue",
        db_default="default",
        db_constraint=False,
        db_index=False,
        related_name="tasks",
    )

    class Meta:
        db_table = "tasks"
        ordering = ["-id"]
        permissions = [
            ("retry_task", "Can retry failed and cancelled tasks"),
            ("requeue_task", "Can requeue scheduled and stuck tasks"),
            ("cancel_task", "Can cancel tasks"),
            ("release_task", "Can take running tasks back from their workers, uncharged"),
            ("set_priority_task", "Can set the priority of waiting tasks"),
            ("move_task", "Can move waiting tasks to another queue"),
            ("run_again_task", "Can run completed tasks again"),
        ]
        # What a row may be is checked by the triggers guard_insert and guard_update (queues/sql), which
        # unlike constraints cost our own verbs nothing.
        constraints = [
            models.UniqueConstraint(
                Coalesce("tenant_id", Value("")),
                "type",
                "dedupe_key",
                name="tasks_dedupe_key_live",
                condition=Q(
                    dedupe_key__isnull=False,
                    status__in=["blocked", "scheduled", "pending", "processing"],
                ),
            ),
        ]
        indexes = [
            models.Index(
                "queue",
                F("priority").desc(),
                "round",
                "run_at",
                "id",
                name="tasks_claim",
                condition=Q(status="pending"),
            ),
            models.Index("run_at", "id", name="tasks_due", condition=Q(status="scheduled")),
            models.Index(
                "queue",
                "tenant_id",
                "worker_id",
                name="tasks_running",
                condition=Q(status="processing"),
            ),
            models.Index(
                "queue",
                Coalesce("tenant_id", Value("")),
                F("priority").desc(),
                "round",
                "run_at",
                "id",
                name="tasks_lane",
                condition=Q(status="pending") & (Q(tenant_id__isnull=False) | Q(round__gt=0)),
            ),
            models.Index("id", name="tasks_pending", condition=Q(status="pending")),
            models.Index("id", name="tasks_blocked", condition=Q(status="blocked")),
            models.Index(
                "status",
                "completed_at",
                "id",
                name="tasks_finished",
                condition=Q(status__in=["completed", "failed", "cancelled"]),
            ),
            models.Index(
                "correlation_id",
                name="tasks_correlation",
                condition=Q(correlation_id__isnull=False),
            ),
        ]


class TaskDependency(models.Model):
    """`task` waits on `predecessor`, which may be archived: there is no foreign key to it."""

    id = models.BigAutoField(primary_key=True)
    task = models.ForeignKey(
        Task, models.CASCADE, db_constraint=False, db_index=False, related_name="waits_for"
    )
    predecessor_id = models.UUIDField()
    on_failure = models.TextField(db_default="cancel")
    outcome = models.TextField(null=True, help_text="Null while it still waits.")

    class Meta:
        db_table = "task_dependencies"
        verbose_name_plural = "task dependencies"
        constraints = [
            models.CheckConstraint(
                name="task_dependencies_on_failure_known",
                condition=Q(on_failure__in=["cancel", "run"]),
            ),
            models.CheckConstraint(
                name="task_dependencies_outcome_known",
                condition=Q(outcome__in=["released", "cancelled"]),
            ),
            models.CheckConstraint(
                name="task_dependencies_not_on_itself", condition=~Q(task=F("predecessor_id"))
            ),
            models.UniqueConstraint("task", "predecessor_id", name="task_dependencies_once"),
        ]
        indexes = [
            models.Index("predecessor_id", name="task_dependencies_of"),
            models.Index(
                "predecessor_id",
                name="task_dependencies_waiting",
                condition=Q(outcome__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} after {self.predecessor_id}"
