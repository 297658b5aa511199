"""Payments in the admin: to look at. Money is changed by its provider, never by hand."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount
from queues.admin import ReadOnlyAdmin
from queues.redaction import redact


@admin.register(Transaction)
class TransactionAdmin(ReadOnlyAdmin):
    list_display = ("order_id", "provider", "money", "status", "fulfilled_at", "created_at")
    list_filter = ("status",)
    search_fields = ("order_id__exact",)
    search_help_text = "A whole order id."
    fields = (
        *("id", "provider", "order_id", "payment_id", "email", "money", "status"),
        *("task_id", "fulfilled_at", "created_at", "updated_at"),
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
        *("reason", "transaction_id", "task_id", "headers", "body_text"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("body")

    @admin.display(description="body")
    def body_text(self, row: WebhookDelivery) -> SafeString:
        return format_html("<pre>{}</pre>", readable_body(bytes(row.body)))


def readable_body(body: bytes) -> str:
    """The body as text. Where it is JSON, the values of QUEUE_REDACTED_KEYS are left out."""
    text = body.decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
        return json.dumps(redact(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
