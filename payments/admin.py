"""Payments in the admin: to look at. Money is changed by its provider, never by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.console.body import readable_body
from payments.models import (
    Fulfilment,
    Reconciliation,
    ReconciliationRow,
    Transaction,
    WebhookDelivery,
)
from payments.money import format_amount
from queues.admin import ReadOnlyAdmin


@admin.register(Transaction)
class TransactionAdmin(ReadOnlyAdmin):
    list_display = ("order_id", "provider", "money", "status", "fulfilled_at", "created_at")
    list_filter = ("status",)
    search_fields = ("order_id__exact",)
    search_help_text = "A whole order id."
    fields = (
        *("id", "provider", "order_id", "payment_id", "email", "money", "refunded", "status"),
        *("task_id", "expected_at", "held_at", "paid_at", "fulfilled_at"),
        *("created_at", "updated_at"),
    )
    readonly_fields = fields

    @admin.display(description="amount")
    def money(self, row: Transaction) -> str:
        return format_amount(row.amount, row.currency)


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "provider", "event_type", "order_id", "verdict", "reason")
    list_filter = ("verdict",)
    search_fields = ("order_id__exact",)
    search_help_text = "A whole order id."
    fields = (
        *("id", "received_at", "provider", "event_id", "event_type", "order_id", "verdict"),
        *("reason", "transaction_id", "task_id", "handled_at", "handled_by", "handling"),
        *("headers", "body_text"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("body")

    @admin.display(description="body")
    def body_text(self, row: WebhookDelivery) -> SafeString:
        return format_html("<pre>{}</pre>", readable_body(bytes(row.body)))


@admin.register(Fulfilment)
class FulfilmentAdmin(ReadOnlyAdmin):
    list_display = ("order_id", "created_at", "task_id")
    search_fields = ("order_id__exact",)
    search_help_text = "A whole order id."
    fields = ("id", "order_id", "transaction", "task_id", "detail", "created_at")
    readonly_fields = fields


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnlyAdmin):
    list_display = (
        *("started_at", "provider", "source", "agreed", "missing_here", "missing_there"),
        *("different", "error", "finished_at"),
    )
    list_filter = ("source",)


@admin.register(ReconciliationRow)
class ReconciliationRowAdmin(ReadOnlyAdmin):
    list_display = ("finding", "order_id", "payment_id", "difference", "handled_at", "handled_by")
    list_filter = ("finding",)
    exclude = ("ours", "theirs")
