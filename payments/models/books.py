"""What comparing the ledger with its providers' books found."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from queues.models import DatabaseClock, NewTaskId


class Reconciliation(models.Model):
    """One comparison of the ledger with a provider's books, or with a statement from a file.

    `unread`: payments of the other side that could not be read. `not_asked`: orders that the provider
    did not list and that it was not asked for one by one, since they were too many.
    """

    class Source(models.TextChoices):
        PROVIDER = "provider"
        STATEMENT = "statement"

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    provider = models.TextField()
    source = models.TextField(choices=Source.choices)
    # The statement's file name; empty where the provider was asked.
    name = models.TextField(blank=True, db_default="")
    since = models.DateTimeField(null=True, blank=True)
    until = models.DateTimeField(null=True, blank=True)
    actor = models.TextField(blank=True, db_default="")
    agreed = models.IntegerField(db_default=0)
    missing_here = models.IntegerField(db_default=0)
    missing_there = models.IntegerField(db_default=0)
    different = models.IntegerField(db_default=0)
    unread = models.IntegerField(db_default=0)
    not_asked = models.IntegerField(db_default=0)
    error = models.TextField(blank=True, db_default="")
    started_at = models.DateTimeField(db_default=DatabaseClock())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "reconciliations"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.provider} {self.started_at:%Y-%m-%d %H:%M}"


class ReconciliationRow(models.Model):
    """One payment on which the two sides do not agree, with what each says.

    There is one open row for a payment, of the comparison that found it last. It stays open until a
    person has dealt with it or the two sides agree.
    """

    class Finding(models.TextChoices):
        MISSING_HERE = "missing_here"
        MISSING_THERE = "missing_there"
        DIFFERENT = "different"

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    reconciliation = models.ForeignKey(
        Reconciliation, models.CASCADE, related_name="rows", db_index=False
    )
    provider = models.TextField()
    finding = models.TextField(choices=Finding.choices)
    order_id = models.TextField(blank=True, db_default="")
    payment_id = models.TextField(blank=True, db_default="")
    difference = models.TextField(blank=True, db_default="")
    ours = models.JSONField(null=True, blank=True)
    theirs = models.JSONField(null=True, blank=True)
    # The transaction of ours, where there is one.
    transaction_id = models.UUIDField(null=True, blank=True)
    # The delivery that recorded the provider's word, after a person asked for that.
    delivery_id = models.UUIDField(null=True, blank=True)
    handled_at = models.DateTimeField(null=True, blank=True)
    handled_by = models.TextField(blank=True, db_default="")
    found_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "reconciliation_rows"
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                "provider",
                "order_id",
                "payment_id",
                name="reconciliation_rows_open_once",
                condition=Q(handled_at__isnull=True),
            ),
        ]
        indexes = [
            models.Index("reconciliation", "finding", "id", name="reconciliation_rows_of"),
            models.Index("order_id", name="reconciliation_rows_order"),
        ]

    def __str__(self) -> str:
        return f"{self.finding}: {self.order_id or self.payment_id}"
