"""The nouns of payments: the ledger with one row an order, the payments that were tried for it, each
delivery of a webhook, the effects of fulfilment, and what comparing the ledger with its providers found."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import MD5

from queues.models import DatabaseClock, NewTaskId

EMPTY = Value({}, output_field=models.JSONField())


class Transaction(models.Model):
    """One order's money. `order_id` is unique, over all providers: that is what makes a replayed
    webhook harmless.

    `payment_id`: the payment that paid it; until one has, the one that was heard of last.
    `expected_at`, `expected_email`: when and for which address the order was announced
    (expect_order); null: its money came unannounced. `email`: the address that a receipt goes to.
    `held_at`: it was paid unannounced and a person must release it to be fulfilled.
    """

    class Status(models.TextChoices):
        CREATED = "created"
        AUTHORIZED = "authorized"
        PAID = "paid"
        FAILED = "failed"
        PARTIALLY_REFUNDED = "partially_refunded"
        REFUNDED = "refunded"

    # In these the money has come.
    SETTLED = ("paid", "partially_refunded", "refunded")

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    provider = models.TextField(db_default="razorpay")
    order_id = models.TextField()
    payment_id = models.TextField(null=True, blank=True)
    email = models.TextField(null=True, blank=True)
    expected_email = models.TextField(null=True, blank=True)
    amount = models.BigIntegerField(help_text="Minor units (paisa, cents).")
    currency = models.TextField(db_default="INR")
    refunded = models.BigIntegerField(db_default=0, help_text="Minor units given back so far.")
    status = models.TextField(choices=Status.choices, db_default=Status.CREATED)
    # No foreign key: the task may be archived.
    task_id = models.UUIDField(null=True, blank=True)
    expected_at = models.DateTimeField(null=True, blank=True)
    held_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)
    fulfilled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=DatabaseClock())
    updated_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "transactions"
        ordering = ["-id"]
        permissions = [
            ("fulfil_transaction", "Can release a held order and fulfil a paid one anew"),
            ("override_settled", "Can retry a money task whose transaction is settled"),
            ("reconcile_transaction", "Can compare the ledger with a provider"),
        ]
        constraints = [
            models.CheckConstraint(
                name="transactions_status_known",
                condition=Q(
                    status__in=[
                        *("created", "authorized", "paid", "failed"),
                        *("partially_refunded", "refunded"),
                    ]
                ),
            ),
            models.CheckConstraint(
                name="transactions_amount_not_negative", condition=Q(amount__gte=0)
            ),
            models.CheckConstraint(
                name="transactions_refunded_not_negative", condition=Q(refunded__gte=0)
            ),
            models.CheckConstraint(
                name="transactions_currency_is_iso_4217", condition=Q(currency__regex=r"^[A-Z]{3}$")
            ),
            models.CheckConstraint(name="transactions_order_id_given", condition=~Q(order_id="")),
            models.UniqueConstraint(fields=["order_id"], name="transactions_order_once"),
        ]
        indexes = [
            models.Index(
                "paid_at",
                name="transactions_unfulfilled",
                condition=Q(status__in=["paid", "partially_refunded"], fulfilled_at__isnull=True),
            ),
            models.Index("task_id", name="transactions_task", condition=Q(task_id__isnull=False)),
            models.Index("status", F("id").desc(), name="transactions_status"),
            models.Index("provider", F("id").desc(), name="transactions_provider"),
            models.Index("currency", "paid_at", "amount", "refunded", name="transactions_totals"),
            models.Index(
                "provider",
                "paid_at",
                "id",
                name="transactions_paid",
                condition=Q(paid_at__isnull=False),
            ),
            models.Index(
                "email", F("id").desc(), name="transactions_email", condition=Q(email__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.order_id} ({self.status})"


class OrderPayment(models.Model):
    """One payment that was tried for an order, as far as its provider told. It is of one order only."""

    pk = models.CompositePrimaryKey("provider", "payment_id")
    provider = models.TextField()
    payment_id = models.TextField()
    transaction = models.ForeignKey(Transaction, models.PROTECT, related_name="payments")
    status = models.TextField(choices=Transaction.Status.choices)
    refunded = models.BigIntegerField(db_default=0, help_text="Minor units given back so far.")
    created_at = models.DateTimeField(db_default=DatabaseClock())
    updated_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "order_payments"

    def __str__(self) -> str:
        return f"{self.payment_id} ({self.status})"


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


class Fulfilment(models.Model):
    """The record of an order's effect, written in the transaction that marks it fulfilled.

    One for a transaction and one for an order's name: whatever runs twice, this exists once.
    """

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    order_id = models.TextField()
    transaction = models.OneToOneField(Transaction, models.PROTECT, related_name="fulfilment")
    task_id = models.UUIDField(null=True, blank=True)
    detail = models.JSONField(db_default=EMPTY)
    created_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "fulfilments"
        constraints = [models.UniqueConstraint(fields=["order_id"], name="fulfilments_order_once")]

    def __str__(self) -> str:
        return self.order_id


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
