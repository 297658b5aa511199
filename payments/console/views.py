"""The pages. Each looks at the database and changes nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from payments.console import story
from payments.console.acts import offered
from payments.console.attention import count_of_open_deliveries, open_mismatches
from payments.console.body import shown_body
from payments.console.compare import sides_of
from payments.console.filters import ATTENTION, DeliveryFilter, PaymentFilter
from payments.console.meaning import meaning_of
from payments.console.totals import totals
from payments.models import Transaction, WebhookDelivery
from queues.console.access import page, render_whole_or
from queues.console.keyset import page_of, total_of


def _render(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    return render_whole_or(request, name, context, folder="payments")


@require_safe
@page("payments.view_transaction")
def payments(request: HttpRequest) -> HttpResponse:
    """The list of payments, below what came in and went back by currency and day."""
    chosen = PaymentFilter.from_query(request.GET)
    rows = chosen.rows()
    total, exact = total_of(rows, whole=chosen.is_empty)
    found = page_of(rows, chosen.order, request.GET.get("cursor", ""))
    contradicted = open_mismatches().filter(transaction_id__in=[row.pk for row in found.rows])
    context = {
        "filter": chosen,
        "page": found,
        "contradicted": set(contradicted.values_list("transaction_id", flat=True)),
        "total": total,
        "exact": exact,
        "statuses": Transaction.Status.values,
        "attentions": {"": "all", **ATTENTION},
        "totals": totals(chosen.since, chosen.until, chosen.currency)
        if chosen.is_summable
        else None,
    }
    return _render(request, "payments", context)


@require_safe
@page("payments.view_transaction")
def payment(request: HttpRequest, transaction_id: UUID) -> HttpResponse:
    """All that is known of one payment."""
    row = get_object_or_404(Transaction, pk=transaction_id)
    context = story.of(row)
    task = next((task for task in context["tasks"] if task.id == row.task_id), None)
    may_fulfil = story.is_due(row) and (task is None or task.status not in task.LIVE)
    context["acts"] = offered(request.user.has_perm, ["fulfil"] if may_fulfil else [])
    return _render(request, "payment", context)


@require_safe
@page("payments.view_webhookdelivery")
def deliveries(request: HttpRequest) -> HttpResponse:
    """What providers posted, with the verdict on each."""
    chosen = DeliveryFilter.from_query(request.GET)
    rows = chosen.rows()
    total, exact = total_of(rows, whole=chosen.is_empty)
    context = {
        "filter": chosen,
        "page": page_of(rows, chosen.order, request.GET.get("cursor", "")),
        "total": total,
        "exact": exact,
        "verdicts": WebhookDelivery.Verdict.values,
        "waiting": count_of_open_deliveries(),
    }
    return _render(request, "deliveries", context)


@require_safe
@page("payments.view_webhookdelivery")
def delivery(request: HttpRequest, delivery_id: UUID) -> HttpResponse:
    """One delivery: what it says beside what the ledger has, as it came, and what was made of it."""
    shown = get_object_or_404(WebhookDelivery, pk=delivery_id)
    row, both = sides_of(shown)
    undecided = shown.handled_at is None and shown.verdict in ("mismatch", "rejected")
    names = ["set_aside"] if undecided else []
    meaning = meaning_of(row, shown) if undecided and shown.verdict == "mismatch" else None
    if meaning and meaning.accepting:
        names.insert(0, "accept")
    context = {
        "delivery": shown,
        "payment": row,
        "meaning": meaning,
        "lines": both,
        "body": shown_body(bytes(shown.body)),
        "acts": offered(request.user.has_perm, names),
    }
    return _render(request, "delivery", context)
