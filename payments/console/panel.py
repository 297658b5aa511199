"""The transaction that a task belongs to, on the task's page."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse

from payments.guards import transaction_named_in
from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount
from queues.console import story
from queues.models import TaskFields


def connect() -> None:
    """Plug the panel into the pages of tasks."""
    story.panels.append(transaction_panel)


def transaction_panel(request: HttpRequest, task: TaskFields) -> story.Panel | None:
    """The task's transaction, for those who may see payments."""
    if not request.user.has_perm("payments.view_transaction"):
        return None
    found = transaction_of(task)
    if found is None:
        return None
    about = Q(transaction_id=found.pk) | Q(order_id=found.order_id)
    deliveries = WebhookDelivery.objects.filter(about).only("verdict").order_by("id")[:20]
    return story.Panel(
        "Payment",
        [
            ("Order", found.order_id),
            ("Amount", format_amount(found.amount, found.currency)),
            ("Status", found.status.replace("_", " ")),
            ("Fulfilled", "yes" if found.fulfilled_at else "not yet"),
            ("Deliveries", ", ".join(delivery.verdict for delivery in deliveries) or "none"),
        ],
        reverse("payments:transaction", args=[found.pk]),
    )


def transaction_of(task: TaskFields) -> Transaction | None:
    """The transaction that the task fulfils, that its payload names, or that began its trail."""
    if found := Transaction.objects.filter(task_id=task.id).first():
        return found
    named = transaction_named_in(task.payload) if task.type.startswith("payments.") else None
    id = named or _began(task.correlation_id)
    return Transaction.objects.filter(pk=id).first() if id else None


def _began(trail: str | None) -> UUID | None:
    """A trail is named after the delivery that began it, or after the transaction itself."""
    try:
        id = UUID(trail or "")
    except ValueError:
        return None
    delivery = WebhookDelivery.objects.filter(pk=id).values_list("transaction_id", flat=True)
    return delivery.first() or id
