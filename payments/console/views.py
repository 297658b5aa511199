"""The pages. Each looks at the database and changes nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from payments.console import story
from payments.console.acts import offered
from payments.console.attention import attention, open_mismatches
from payments.console.body import shown_body
from payments.console.compare import lines, sides_of, telling
from payments.console.filters import ATTENTION, DeliveryFilter, PaymentFilter
from payments.console.totals import totals
from payments.models import Reconciliation, ReconciliationRow, Transaction, WebhookDelivery
from queues.console.access import page, render_whole_or
from queues.console.keyset import Order, page_of, total_of

Finding = ReconciliationRow.Finding
FINDINGS = {
    Finding.MISSING_HERE: "missing here",
    Finding.DIFFERENT: "different",
    Finding.MISSING_THERE: "missing there",
}
IN_ORDER: Order = (("id",), False)
NEWEST: Order = (("id",), True)


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
        "totals": totals(chosen.since, chosen.until, chosen.currency),
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
        "open_mismatches": attention().mismatches,
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
    if undecided and shown.verdict == "mismatch" and (shown.claim or {}).get("status"):
        names.insert(0, "accept")
    context = {
        "delivery": shown,
        "payment": row,
        "lines": both,
        "body": shown_body(bytes(shown.body)),
        "acts": offered(request.user.has_perm, names),
    }
    return _render(request, "delivery", context)


@require_safe
@page("payments.view_reconciliation")
def reconciliations(request: HttpRequest) -> HttpResponse:
    """The comparisons of the ledger with the providers' books, the newest first."""
    found = page_of(Reconciliation.objects.all(), NEWEST, request.GET.get("cursor", ""))
    return _render(request, "reconciliations", {"page": found})


@require_safe
@page("payments.view_reconciliation")
def reconciliation(request: HttpRequest, reconciliation_id: UUID) -> HttpResponse:
    """One comparison: the rows of one finding, each with both sides and what can be done."""
    run = get_object_or_404(Reconciliation, pk=reconciliation_id)
    counts = {finding: getattr(run, finding.value) for finding in FINDINGS}
    first = next((finding for finding, count in counts.items() if count), Finding.MISSING_HERE)
    asked = request.GET.get("finding", "")
    finding = Finding(asked) if asked in Finding.values else first
    found = page_of(
        ReconciliationRow.objects.filter(reconciliation=run, finding=finding),
        IN_ORDER,
        request.GET.get("cursor", ""),
    )
    may = request.user.has_perm
    sides = [(row, lines(row.ours, row.theirs)) for row in found.rows]
    context = {
        "run": run,
        "finding": finding,
        "findings": [(kind, label, counts[kind]) for kind, label in FINDINGS.items()],
        "page": found,
        "rows": [(row, telling(all), all, offered(may, _acts_on(row))) for row, all in sides],
    }
    return _render(request, "reconciliation", context)


def _acts_on(row: ReconciliationRow) -> list[str]:
    if row.handled_at:
        return []
    return ["record", "set_row_aside"] if row.theirs else ["set_row_aside"]
