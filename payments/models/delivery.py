"""What providers send, as it came."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import MD5

from queues.models import DatabaseClock, NewTaskId

EMPTY = Value({}, output_field=models.JSONField())


class WebhookDelivery(models.Model):
    """One POST of a provider, as it came, and what we made of it.

    `source`: who told it: the provider's webhook, the browser's callback, or a reconciliation.
    `signed`: it proved who sent it, also where it was rejected for what it says.
    `took`: seconds from the request's start to its commit. `handled_at`: a person has dealt with it.
    """

    class Verdict(models.TextChoices):
        ACCEPTED = "accepted"
        DUPLICATE = "duplicate"
        MISMATCH = "mismatch"
        STALE = "stale"
        REJECTED = "rejected"

    class Source(models.TextChoices):
        WEBHOOK = "webhook"
        CALLBACK = "callback"
        RECONCILIATION = "reconciliation"

    # What waits for a person: a contradiction, or genuine news that we cannot read.
    OPEN = Q(verdict__in=["mismatch", "rejected"], signed=True, handled_at__isnull=True)

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    provider = models.TextField()
    source = models.TextField(choices=Source.choices, db_default=Source.WEBHOOK)
    # Null for a rejected one: what it calls itself is not to be believed.
    event_id = models.TextField(null=True, blank=True)
    event_type = models.TextField(blank=True, db_default="")
    order_id = models.TextField(null=True, blank=True)
    payment_id = models.TextField(null=True, blank=True)
    # What the event says, for a person who compares, and for one who accepts it after all.
    claim = models.JSONField(null=True, blank=True)
    verdict = models.TextField(choices=Verdict.choices)
    signed = models.BooleanField(db_default=True)
    reason = models.TextField(blank=True, db_default="")
    body = models.BinaryField()
    headers = models.JSONField(db_default=EMPTY)
    # No foreign keys: deliveries outlive what they speak of.
    transaction_id = models.UUIDField(null=True, blank=True)
    task_id = models.UUIDField(null=True, blank=True)
    took = models.FloatField(null=True, blank=True)
    handled_at = models.DateTimeField(null=True, blank=True)
    handled_by = models.TextField(blank=True, db_default="")
    handling = models.TextField(blank=True, db_default="")
    received_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "webhook_deliveries"
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        permissions = [
            ("handle_webhookdelivery", "Can accept a mismatch or set it aside"),
        ]
        constraints = [
            models.CheckConstraint(
                name="webhook_deliveries_verdict_known",
                condition=Q(verdict__in=["accepted", "duplicate", "mismatch", "stale", "rejected"]),
            ),
            models.CheckConstraint(
                name="webhook_deliveries_source_known",
                condition=Q(source__in=["webhook", "callback", "reconciliation"]),
            ),
            models.UniqueConstraint(
                "provider",
                "event_id",
                name="webhook_deliveries_event_once",
                condition=Q(event_id__isnull=False) & ~Q(verdict__in=["duplicate", "rejected"]),
            ),
        ]
        indexes = [
            models.Index("order_id", name="webhook_deliveries_order"),
            models.Index("transaction_id", F("id").desc(), name="webhook_deliveries_of"),
            models.Index("verdict", F("id").desc(), name="webhook_deliveries_verdict"),
            models.Index("provider", F("id").desc(), name="webhook_deliveries_provider"),
            models.Index(
                "signed",
                "received_at",
                name="webhook_deliveries_rejected",
                condition=Q(verdict="rejected"),
            ),
            # What speaks of no order is known again by its body alone.
            models.Index(
                "provider",
                MD5("body"),
                name="webhook_deliveries_loose",
                condition=Q(signed=True, order_id__isnull=True, transaction_id__isnull=True),
            ),
            models.Index(
                "provider",
                "payment_id",
                name="webhook_deliveries_open_paid",
                condition=Q(
                    verdict__in=["mismatch", "rejected"], signed=True, handled_at__isnull=True
                ),
            ),
            # The rows of OPEN.
            models.Index(
                "received_at",
                name="webhook_deliveries_open",
                condition=Q(
                    verdict__in=["mismatch", "rejected"], signed=True, handled_at__isnull=True
                ),
            ),
            models.Index(
                "provider",
                "event_id",
                name="webhook_deliveries_duplicates",
                condition=Q(verdict="duplicate"),
            ),
            models.Index("received_at", "id", name="webhook_deliveries_received"),
            models.Index(
                "received_at",
                "id",
                name="webhook_deliveries_repeats",
                condition=Q(verdict__in=["duplicate", "stale"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.event_type} ({self.verdict})"
