from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


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
                name="queues_default_timeout_range",
                condition=Q(
                    default_timeout__gt=timedelta(0), default_timeout__lte=timedelta(days=366)
                ),
            ),
            models.CheckConstraint(
                name="queues_default_max_attempts_range",
                condition=Q(default_max_attempts__range=(1, 100)),
            ),
        ]

    def __str__(self) -> str:
        return self.name
