from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q, Value

from queues.models.shared import DatabaseClock, at_most_characters


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
