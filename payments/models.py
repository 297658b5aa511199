"""The nouns of payments: each delivery of a webhook, and the ledger with one row an order."""

from __future__ import annotations

from django.db import models
from django.db.models import Q, Value

from queues.models import DatabaseClock, NewTaskId


class Transaction(models.Model):
    """One order's money. `order_id` is unique: that is what makes a replayed webhook harmless."""

    class Status(models.TextChoices):
        CREATED = "created"
        AUTHORIZED = "authorized"
        PAID = "paid"
        FAILED = "failed"
        REFUNDED = "refunded"

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    provider = models.TextField(db_default="razorpay")
    order_id = models.TextField(unique=True)
    payment_id = models.TextField(null=True, blank=True)
    email = models.TextField(null=True, blank=True)
    amount = models.BigIntegerField(help_text="Minor units (paisa, cents).")
    currency = models.TextField(db_default="INR")
    status = models.TextField(choices=Status.choices, db_default=Status.CREATED)
    # No foreign key: the task may be archived.
    task_id = models.UUIDField(null=True, blank=True)
    fulfilled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=DatabaseClock())
    updated_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "transactions"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="transactions_status_known",
                condition=Q(status__in=["created", "authorized", "paid", "failed", "refunded"]),
            ),
            models.CheckConstraint(
                name="transactions_amount_not_negative", condition=Q(amount__gte=0)
            ),
            models.CheckConstraint(
                name="transactions_currency_is_iso_4217", condition=Q(currency__regex=r"^[A-Z]{3}$")
            ),
            models.CheckConstraint(name="transactions_order_id_given", condition=~Q(order_id="")),
        ]
        indexes = [
            models.Index(
                "updated_at",
                name="transactions_unfulfilled",
                condition=Q(status="paid", fulfilled_at__isnull=True),
            ),
            models.Index("task_id", name="transactions_task", condition=Q(task_id__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.order_id} ({self.status})"


class WebhookDelivery(models.Model):
    """One POST of a provider, as it came, and what we made of it."""

    class Verdict(models.TextChoices):
        ACCEPTED = "accepted"
        DUPLICATE = "duplicate"
        MISMATCH = "mismatch"
        STALE = "stale"
        REJECTED = "rejected"

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    provider = models.TextField()
    # Null for a rejected one: what it calls itself is not to be believed.
    event_id = models.TextField(null=True, blank=True)
    event_type = models.TextField(blank=True, db_default="")
    order_id = models.TextField(null=True, blank=True)
    verdict = models.TextField(choices=Verdict.choices)
    reason = models.TextField(blank=True, db_default="")
    body = models.BinaryField()
    headers = models.JSONField(db_default=Value({}, output_field=models.JSONField()))
    # No foreign keys: deliveries outlive what they speak of.
    transaction_id = models.UUIDField(null=True, blank=True)
    task_id = models.UUIDField(null=True, blank=True)
    received_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "webhook_deliveries"
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        constraints = [
            models.CheckConstraint(
                name="webhook_deliveries_verdict_known",
                condition=Q(verdict__in=["accepted", "duplicate", "mismatch", "stale", "rejected"]),
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
            models.Index(
                "received_at", name="webhook_deliveries_rejected", condition=Q(verdict="rejected")
            ),
            models.Index(
                "received_at", name="webhook_deliveries_mismatch", condition=Q(verdict="mismatch")
            ),
            models.Index(
                "provider",
                "event_id",
                name="webhook_deliveries_duplicates",
                condition=Q(verdict="duplicate"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.event_type} ({self.verdict})"
