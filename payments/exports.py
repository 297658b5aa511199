"""Transactions as a source of exports."""

from payments.models import Transaction
from queues.exports import choice_filter, moment_filter, register_source, text_filter

register_source(
    "transactions",
    Transaction,
    # The amount is in minor units (paisa, cents).
    columns=[
        "id",
        "provider",
        "order_id",
        "payment_id",
        "email",
        "amount",
        "currency",
        "status",
        "fulfilled_at",
        "created_at",
    ],
    filters={
        "status": choice_filter("status", Transaction.Status.values),
        "currency": text_filter("currency"),
        "provider": text_filter("provider"),
        "order_id": text_filter("order_id"),
        "created_after": moment_filter("created_at__gte"),
        "created_before": moment_filter("created_at__lt"),
    },
)
