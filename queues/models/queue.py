from __future__ import annotations

from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone


class Queue(models.Model):
    """One queue and its rules. Tasks name it; a task in an unknown queue is refused."""

    name = models.TextField(primary_key=True)
    description = models.TextField(blank=True, db_default="")
    max_concurrent = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Tasks processing at once, over all workers. Empty: no cap.",
    )
    max_per_tenant = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Tasks processing at once for each tenant. Empty: no cap. Those without a tenant share one.",
    )
    fair = models.BooleanField(
        db_default=False,
        help_text="Tenants take turns: a flood of one tenant's tasks does not hold up the others.",
    )
    rate_limit = models.FloatField(
        null=True,
        blank=True,
        help_text="Tasks started a second, over all workers. Empty: no limit.",
    )
    burst = models.PositiveIntegerField(
        db_default=1, help_text="With a rate limit: how many may start at once after a quiet time."
    )
    tokens = models.FloatField(db_default=0, editable=False)
    refilled_at = models.DateTimeField(db_default=Now(), editable=False)
    default_timeout = models.DurationField(
        db_default=timedelta(minutes=10), help_text="For tasks that bring no timeout of their own."
    )
    default_max_attempts = models.PositiveSmallIntegerField(db_default=5)
    archive_after = models.DurationField(
        db_default=timedelta(days=1),
        help_text="Completed and cancelled tasks move to the archive this long after their end.",
    )
    keep_failed = models.DurationField(
        db_default=timedelta(days=30),
        help_text="Failed tasks stay this long for someone to retry them, then move to the archive.",
    )
    keep_for = models.DurationField(
        db_default=timedelta(days=90),
        help_text="Archived tasks are kept at least this long after their end. The archive is dropped"
        " by whole days, so the longest time of all queues decides.",
    )
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
                name="queues_name_is_a_slug",
                condition=Q(name__regex=r"^[a-z][a-z0-9_.-]{0,62}$"),
                violation_error_message="A queue's name begins with a letter and has up to 63 lower-case letters, digits, dots, dashes and underscores.",
            ),
            models.CheckConstraint(
                name="queues_max_concurrent_positive",
                condition=Q(max_concurrent__gt=0),
                violation_error_message="Max concurrent is at least 1; leave it empty for no cap, or pause the queue.",
            ),
            models.CheckConstraint(
                name="queues_max_per_tenant_positive",
                condition=Q(max_per_tenant__gt=0),
                violation_error_message="Max per tenant is at least 1; leave it empty for no cap.",
            ),
            models.CheckConstraint(
                name="queues_rate_limit_range",
                condition=Q(rate_limit__gt=0, rate_limit__lte=1_000_000),
                violation_error_message="The rate limit is more than 0 and at most 1,000,000 a second; leave it empty for none.",
            ),
            models.CheckConstraint(
                name="queues_burst_range",
                condition=Q(burst__range=(1, 1_000_000)),
                violation_error_message="The burst is a number from 1 to 1,000,000.",
            ),
            models.CheckConstraint(
                name="queues_default_timeout_range",
                condition=Q(
                    default_timeout__gt=timedelta(0), default_timeout__lte=timedelta(days=366)
                ),
                violation_error_message="The default timeout is more than nothing and at most a year.",
            ),
            models.CheckConstraint(
                name="queues_archive_after_range",
                condition=Q(archive_after__range=(timedelta(minutes=1), timedelta(days=3660))),
                violation_error_message="Archive after is at least a minute and at most ten years.",
            ),
            models.CheckConstraint(
                name="queues_keep_failed_range",
                condition=Q(keep_failed__range=(timedelta(minutes=1), timedelta(days=3660))),
                violation_error_message="Keep failed is at least a minute and at most ten years.",
            ),
            models.CheckConstraint(
                name="queues_keep_for_range",
                condition=Q(keep_for__range=(timedelta(days=1), timedelta(days=3660))),
                violation_error_message="Keep for is at least a day and at most ten years.",
            ),
            models.CheckConstraint(
                name="queues_default_max_attempts_range",
                condition=Q(default_max_attempts__range=(1, 100)),
                violation_error_message="The default max attempts are a number from 1 to 100.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """A pause that is over before it begins is a mistake."""
        if self.paused and self.paused_until and self.paused_until <= timezone.now():
            raise ValidationError({"paused_until": "This moment has passed: give a later one."})
