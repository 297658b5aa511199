from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact

from queues.models.queue import Queue
from queues.models.shared import (
    CALENDAR,
    MAX_JSON_BYTES,
    DatabaseClock,
    NewTaskId,
    TolerantDecoder,
    at_most_bytes,
    at_most_characters,
)


class Task(models.Model):
    """One piece of background work, from enqueue to its final outcome."""

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
    # The constraint is made by the migration: Django's own would be deferred to COMMIT.
    queue: models.ForeignKey[Queue | str, Queue] = models.ForeignKey(
        Queue,
        models.PROTECT,
        db_column="queue",
        db_default="default",
        db_constraint=False,
        db_index=False,
        related_name="tasks",
    )
    type = models.TextField()
    payload = models.JSONField(
        blank=True, decoder=TolerantDecoder, db_default=Value({}, output_field=models.JSONField())
    )
    status = models.TextField(choices=Status.choices, db_default=Status.PENDING)
    priority = models.SmallIntegerField(db_default=0, help_text="-100 to 100; higher runs first.")
    tenant_id = models.TextField(null=True, blank=True)
    run_at = models.DateTimeField(db_default=DatabaseClock())
    attempts = models.PositiveIntegerField(db_default=0)
    max_attempts = models.PositiveIntegerField(db_default=5)
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

    class Meta:
        db_table = "tasks"
        ordering = ["-id"]
        permissions = [
            ("retry_task", "Can retry failed and cancelled tasks"),
            ("requeue_task", "Can requeue scheduled and stuck tasks"),
            ("cancel_task", "Can cancel tasks"),
        ]
        constraints = [
            models.CheckConstraint(
                name="tasks_status_known",
                condition=Q(
                    status__in=[
                        "blocked",
                        "scheduled",
                        "pending",
                        "processing",
                        "completed",
                        "failed",
                        "cancelled",
                    ]
                ),
            ),
            models.CheckConstraint(
                name="tasks_processing_has_worker_and_start",
                condition=~Q(status="processing")
                | Q(worker_id__isnull=False, started_at__isnull=False, lease__gt=0),
            ),
            models.CheckConstraint(
                name="tasks_waiting_has_no_worker",
                condition=~Q(status__in=["blocked", "scheduled", "pending"])
                | Q(worker_id__isnull=True),
            ),
            models.CheckConstraint(
                name="tasks_completed_at_when_final",
                condition=Q(
                    status__in=["completed", "failed", "cancelled"], completed_at__isnull=False
                )
                | (
                    ~Q(status__in=["completed", "failed", "cancelled"])
                    & Q(completed_at__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="tasks_blocked_while_waiting_on",
                condition=Q(status="blocked", waits_on__gt=0)
                | (~Q(status="blocked") & Q(waits_on=0)),
            ),
            models.CheckConstraint(
                name="tasks_type_1_to_200_characters",
                condition=Q(type__regex=r"\S") & Q(at_most_characters("type", 200)),
            ),
            models.CheckConstraint(
                name="tasks_priority_range", condition=Q(priority__range=(-100, 100))
            ),
            models.CheckConstraint(
                name="tasks_attempts_range",
                condition=Q(attempts__gte=0, max_attempts__range=(1, 100)),
            ),
            models.CheckConstraint(
                # No infinity, which Python cannot read.
                name="tasks_moments_in_calendar",
                condition=Q(run_at__range=CALENDAR, created_at__range=CALENDAR),
            ),
            models.CheckConstraint(
                name="tasks_timeout_range",
                condition=Q(timeout__gt=timedelta(0), timeout__lte=timedelta(days=366)),
            ),
            models.CheckConstraint(
                name="tasks_errors_is_an_array",
                condition=Exact(
                    Func(F("errors"), function="jsonb_typeof", output_field=models.TextField()),
                    Value("array"),
                ),
            ),
            models.CheckConstraint(
                name="tasks_progress_percent", condition=Q(progress__range=(0, 100))
            ),
            models.CheckConstraint(
                name="tasks_payload_at_most_1_mib",
                condition=at_most_bytes("payload", MAX_JSON_BYTES),
            ),
            models.CheckConstraint(
                name="tasks_result_at_most_1_mib", condition=at_most_bytes("result", MAX_JSON_BYTES)
            ),
            models.CheckConstraint(
                name="tasks_keys_at_most_200_characters",
                condition=Q(at_most_characters("dedupe_key", 200))
                & Q(at_most_characters("correlation_id", 200))
                & Q(at_most_characters("tenant_id", 200))
                & Q(at_most_characters("worker_id", 200)),
            ),
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
                "queue", "tenant_id", name="tasks_running", condition=Q(status="processing")
            ),
            models.Index("worker_id", name="tasks_held", condition=Q(status="processing")),
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

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


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
