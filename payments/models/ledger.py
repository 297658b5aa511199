"""The ledger: one row an order, the payments that were tried for it, the effects of fulfilment."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, Value

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
    refund_failed = models.BooleanField(db_default=False)
    created_at = models.DateTimeField(db_default=DatabaseClock())
    updated_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "order_payments"

    def __str__(self) -> str:
        return f"{self.payment_id} ({self.status})"


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
