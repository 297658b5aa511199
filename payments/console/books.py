"""The pages of what comparing the ledger with the providers' books found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from payments.console.acts import Act, offered
from payments.console.attention import differences_by_provider, moment_of
from payments.console.compare import Line, contradicts, lines, telling
from payments.console.filters import DifferenceFilter
from payments.models import Reconciliation, ReconciliationRow
from payments.reconcile import left_out
from queues.console.access import page, render_whole_or
from queues.console.keyset import Order, count_of, page_of

Finding = ReconciliationRow.Finding
MEANING = {
    Finding.MISSING_HERE: "The provider has the money, and the ledger does not know the payment.",
    Finding.MISSING_THERE: "The ledger holds it as paid, and the provider does not show the payment: look"
    " for it in the provider's own console before anything is delivered, then set the difference aside.",
    Finding.DIFFERENT: "Both know the payment, and say different things of it.",
}
FINDINGS = {
    Finding.MISSING_HERE: "missing here",
    Finding.DIFFERENT: "different",
    Finding.MISSING_THERE: "missing there",
}
IN_ORDER: Order = (("id",), False)
NEWEST: Order = (("id",), True)


class Case:
    """One difference for people: both sides, what tells them apart, and what can be done about it."""

    def __init__(self, request: HttpRequest, row: ReconciliationRow) -> None:
        self.row = row
        self.lines: list[Line] = lines(row.ours, row.theirs)
        self.telling = telling(self.lines)
        acts = offered(request.user.has_perm, _acts_on(row))
        self.acts: list[Act] = (
            [replace(act, primary=False) for act in acts] if contradicts(self.lines) else acts
        )
        self.first_found = moment_of(row.pk)
        self.meaning = MEANING[Finding(row.finding)]


def _acts_on(row: ReconciliationRow) -> list[str]:
    if row.handled_at:
        return []
    return ["record", "set_row_aside"] if row.theirs else ["set_row_aside"]


@require_safe
@page("payments.view_reconciliation")
def reconciliations(request: HttpRequest) -> HttpResponse:
    """The comparisons of the ledger with the providers' books, the newest first."""
    found = page_of(Reconciliation.objects.all(), NEWEST, request.GET.get("cursor", ""))
    context = {"page": found, "waiting": sum(one.count for one in differences_by_provider())}
    return _render(request, "reconciliations", context)


@require_safe
@page("payments.view_reconciliation")
def reconciliation(request: HttpRequest, reconciliation_id: UUID) -> HttpResponse:
    """One comparison: what it was the last to find of one finding, each with both sides and what can
    be done."""
    run = get_object_or_404(Reconciliation, pk=reconciliation_id)
    counts = {finding: getattr(run, finding.value) for finding in FINDINGS}
    first = next((finding for finding, count in counts.items() if count), Finding.MISSING_HERE)
    asked = request.GET.get("finding", "")
    finding = Finding(asked) if asked in Finding.values else first
    rows = ReconciliationRow.objects.filter(reconciliation=run, finding=finding)
    found = page_of(rows, IN_ORDER, request.GET.get("cursor", ""))
    here, exact = count_of(rows)
    context = {
        "run": run,
        "left_out": left_out(run),
        "finding": finding,
        "meaning": MEANING[finding],
        "findings": [(kind, label, counts[kind]) for kind, label in FINDINGS.items()],
        "page": found,
        "cases": [Case(request, row) for row in found.rows],
        "elsewhere": max(0, counts[finding] - here) if exact else 0,
    }
    return _render(request, "reconciliation", context)


@require_safe
@page("payments.view_reconciliation")
def differences(request: HttpRequest) -> HttpResponse:
    """What is open of all comparisons, the oldest first."""
    chosen = DifferenceFilter.from_query(request.GET)
    rows = chosen.rows()
    total, exact = count_of(rows)
    found = page_of(rows.select_related("reconciliation"), IN_ORDER, request.GET.get("cursor", ""))
    context = {
        "filter": chosen,
        "page": found,
        "cases": [Case(request, row) for row in found.rows],
        "total": total,
        "exact": exact,
        "findings": [(kind.value, label) for kind, label in FINDINGS.items()],
        "providers": differences_by_provider(),
        "back": request.get_full_path(),
    }
    return _render(request, "differences", context)


def _render(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    return render_whole_or(request, name, context, folder="payments")
