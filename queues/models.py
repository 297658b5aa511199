"""The nouns of the queue: tables, columns, constraints and indexes.

Every change of a task's state is an SQL function (queues/sql), wrapped once in queues/claims.py,
queues/enqueue.py or queues/operations.py. Code that saves a Task by hand still cannot break the
rules: CHECK constraints forbid impossible rows and a trigger refuses illegal transitions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Coalesce, Length, Now
from django.db.models.lookups import LessThanOrEqual

MAX_JSON_BYTES = 1024 * 1024
CALENDAR = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


class DatabaseClock(Func):
    """clock_timestamp(): the database's wall clock, also inside a long transaction."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


class NewTaskId(Func):
    """A time-ordered uuid (version 7) made by the database."""

    function = "new_task_id"
    output_field = models.UUIDField()


def at_most_bytes(column: str, limit: int) -> LessThanOrEqual:
    size = Func(F(column), function="pg_column_size", output_field=models.IntegerField())
    return LessThanOrEqual(size, limit)


def at_most_characters(column: str, limit: int) -> LessThanOrEqual:
    return LessThanOrEqual(Length(column), limit)


class Queue(models.Model):
    """One queue and its rules. Tasks name it; a task in an unknown queue is refused."""

    name = models.TextField(primary_key=True)
    description = models.TextField(blank=True, db_default="")
    max_concurrent = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Tasks processing at once, over all workers. Empty: no cap.",
    )
    default_timeout = models.DurationField(
        db_default=timedelta(minutes=10), help_text="For tasks that bring no timeout of their own."
    )
    default_max_attempts = models.PositiveSmallIntegerField(db_default=5)
    paused = models.BooleanField(db_default=False)
    paused_reason = models.TextField(blank=True, db_default="")
    paused_by = models.TextField(blank=True, db_default="")
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateTimeField(
        null=True, blank=True, help_text="Claims resume by themselves then. Empty: until resumed."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "queues"
        ordering = ["name"]
        permissions = [("pause_queue", "Can pause and resume a queue")]
        constraints = [
            models.CheckConstraint(
                name="queues_name_is_a_slug", condition=Q(name__regex=r"^[a-z][a-z0-9_.-]{0,62}$")
            ),
            models.CheckConstraint(
                name="queues_max_concurrent_positive", condition=Q(max_concurrent__gt=0)
            ),
            models.CheckConstraint(
                name="queues_default_timeout_positive",
                condition=Q(default_timeout__gt=timedelta(0)),
            ),
            models.CheckConstraint(
                name="queues_default_max_attempts_range",
                condition=Q(default_max_attempts__range=(1, 100)),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Worker(models.Model):
    """One start of one worker. A process heartbeats; an ephemeral caller never does."""

    class Kind(models.TextChoices):
        PROCESS = "process"
        EPHEMERAL = "ephemeral"

    class Status(models.TextChoices):
        ALIVE = "alive"
        DRAINING = "draining"
        GONE = "gone"

    id = models.TextField(primary_key=True)
    kind = models.TextField(choices=Kind.choices, db_default=Kind.EPHEMERAL)
    status = models.TextField(choices=Status.choices, db_default=Status.ALIVE)
    host = models.TextField(blank=True, db_default="")
    pid = models.IntegerField(null=True, blank=True)
    version = models.TextField(blank=True, db_default="")
    queues = ArrayField(
        models.TextField(), null=True, blank=True, help_text="Queues it claims from. Empty: all."
    )
    concurrency = models.PositiveIntegerField(db_default=1)
    metadata = models.JSONField(db_default=Value({}, output_field=models.JSONField()))
    started_at = models.DateTimeField(db_default=DatabaseClock())
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField(db_default=DatabaseClock())
    idle_since = models.DateTimeField(null=True, blank=True)
    swept_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "workers"
        ordering = ["-started_at", "id"]
        constraints = [
            models.CheckConstraint(
                name="workers_kind_known", condition=Q(kind__in=["process", "ephemeral"])
            ),
            models.CheckConstraint(
                name="workers_status_known", condition=Q(status__in=["alive", "draining", "gone"])
            ),
            models.CheckConstraint(
                name="workers_id_at_most_200_characters", condition=at_most_characters("id", 200)
            ),
        ]

    def __str__(self) -> str:
        return self.id


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
    payload = models.JSONField(blank=True, db_default=Value({}, output_field=models.JSONField()))
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
    result = models.JSONField(null=True, blank=True)
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
                name="tasks_timeout_positive", condition=Q(timeout__gt=timedelta(0))
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
        indexes = [models.Index("predecessor_id", name="task_dependencies_of")]

    def __str__(self) -> str:
        return f"{self.task_id} after {self.predecessor_id}"


class Operation(models.Model):
    """One act of a person: who, why, what. Written in the transaction of the change itself."""

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    verb = models.TextField()
    actor = models.TextField(help_text="The user's name, kept when the user is deleted.")
    reason = models.TextField(blank=True, db_default="")
    requested = models.PositiveIntegerField()
    done = models.PositiveIntegerField()
    skipped = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "operations"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="operations_adds_up", condition=Q(requested=F("done") + F("skipped"))
            )
        ]

    def __str__(self) -> str:
        return f"{self.verb} by {self.actor}"


class OperationItem(models.Model):
    """What an operation did to one task, or why it left it alone."""

    id = models.BigAutoField(primary_key=True)
    operation = models.ForeignKey(Operation, models.CASCADE, related_name="items")
    task_id = models.UUIDField()
    outcome = models.TextField()
    before = models.TextField(blank=True, db_default="")
    after = models.TextField(blank=True, db_default="")
    note = models.TextField(blank=True, db_default="")

    class Meta:
        db_table = "operation_items"
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                name="operation_items_outcome_known", condition=Q(outcome__in=["done", "skipped"])
            )
        ]
        indexes = [models.Index("task_id", name="operation_items_task")]

    def __str__(self) -> str:
        return f"{self.outcome} {self.task_id}"
