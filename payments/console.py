"""What payments add to the console: a verdict, and a panel on the pages of their tasks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from django.core.cache import cache
from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse

from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount
from queues.console import story, verdicts
from queues.console.formats import count, duration
from queues.console.snapshot import FRESH_SECONDS, Snapshot
from queues.models import TaskFields

LATE_SECONDS = 300
CAP = 10_000


def paid_but_not_fulfilled(snapshot: Snapshot) -> Iterable[verdicts.Problem]:
    """Money taken and nothing given for it, for longer than LATE_SECONDS."""
    late = cache.get_or_set("payments.late", _late, FRESH_SECONDS)
    if late:
        oldest = (snapshot.at - min(late)).total_seconds()
        yield verdicts.Problem(
            95,
            f"{count(len(late), 'order')} paid but not fulfilled",
            f"The oldest was paid {duration(oldest)} ago.",
            "See the orders",
            reverse("admin:payments_transaction_changelist")
            + "?status__exact=paid&fulfilled_at__isnull=True",
            "payments.view_transaction",
        )


def mismatches(snapshot: Snapshot) -> Iterable[verdicts.Problem]:
    """Deliveries that tell otherwise than the ledger: a person must look."""
    found = cache.get_or_set("payments.mismatches", _mismatches, FRESH_SECONDS)
    if found:
        yield verdicts.Problem(
            80,
            f"{count(found, 'webhook')} contradicted the ledger in the last 24 hours",
            "Amount, currency, e-mail or provider differ from what was recorded; nothing was changed.",
            "See both values",
            reverse("admin:payments_webhookdelivery_changelist") + "?verdict__exact=mismatch",
            "payments.view_webhookdelivery",
        )


def _mismatches() -> int:
    rows = WebhookDelivery.objects.filter(verdict="mismatch")
    return rows.filter(received_at__gt=Now() - timedelta(days=1))[: CAP + 1].count()


def _late() -> list[datetime]:
    rows = Transaction.objects.filter(
        status="paid",
        fulfilled_at__isnull=True,
        updated_at__lt=Now() - timedelta(seconds=LATE_SECONDS),
    )
    return list(rows.order_by("updated_at").values_list("updated_at", flat=True)[: CAP + 1])


def transaction_panel(request: HttpRequest, task: TaskFields) -> story.Panel | None:
    """The transaction that a task fulfils, for those who may see payments."""
    if not request.user.has_perm("payments.view_transaction"):
        return None
    wanted = Q(task_id=task.id)
    payload = task.payload if isinstance(task.payload, dict) else {}
    if task.type.startswith("payments.") and isinstance(payload.get("transaction_id"), str):
        wanted |= Q(id__in=_uuids(payload["transaction_id"]))
    found = Transaction.objects.filter(wanted).first()
    if found is None:
        return None
    deliveries = WebhookDelivery.objects.filter(order_id=found.order_id).order_by("id")[:20]
    return story.Panel(
        "Payment",
        [
            ("Order", found.order_id),
            ("Amount", format_amount(found.amount, found.currency)),
            ("Status", found.status),
            ("Fulfilled", "yes" if found.fulfilled_at else "not yet"),
            ("Deliveries", ", ".join(delivery.verdict for delivery in deliveries) or "none"),
        ],
        reverse("admin:payments_transaction_change", args=[found.pk]),
    )


def _uuids(text: str) -> list[str]:
    try:
        return [str(UUID(text))]
    except ValueError:
        return []


def connect() -> None:
    """Plug payments into the console."""
    verdicts.register(paid_but_not_fulfilled)
    verdicts.register(mismatches)
    story.panels.append(transaction_panel)
