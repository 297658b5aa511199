"""What a person can decide about money. Each act asks for its reason on a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_http_methods

from payments import decisions, ledger
from payments.console.compare import Line, lines, sides_of
from payments.console.meaning import meaning_of
from payments.ledger import ActRefused
from payments.models import ReconciliationRow, Transaction, WebhookDelivery
from payments.money import format_amount
from queues.console.access import staff_with


@dataclass(frozen=True)
class Subject:
    """What an act is about: its name, its page, and what the person should see once more. An act on
    what says something else than `seen` by then is not done. `note`: what is special about this one;
    `accepting`: what accepting it does."""

    name: str
    url: str
    seen: str = ""
    note: str = ""
    accepting: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Act:
    """One decision. `title` goes around the subject's name; `do` takes the subject's id, the actor
    and the reason, and gives what to tell; it raises ActRefused."""

    permission: str
    button: str
    title: str
    lead: str
    url_name: str
    subject: Callable[[UUID], Subject]
    do: Callable[[UUID, str, str], str]
    danger: bool = False
    primary: bool = False

    @property
    def word(self) -> str:
        """The button that does it, where the other one asks."""
        return self.button.removesuffix("…")


def _payment(id: UUID) -> Subject:
    row = get_object_or_404(Transaction, pk=id)
    facts = [
        ("Amount", format_amount(row.amount, row.currency)),
        ("Status", row.status.replace("_", " ")),
        ("Payment", row.payment_id or "–"),
        ("E-mail", row.email or "–"),
        ("Provider", row.provider),
    ]
    url = reverse("payments:transaction", args=[id])
    note = (
        "Nobody announced this order: only who paid says what it should cost."
        if row.held_at
        else ""
    )
    return Subject(f"order {row.order_id}", url, note=note, facts=facts)


def _delivery(id: UUID) -> Subject:
    row = get_object_or_404(WebhookDelivery, pk=id)
    facts = [("Verdict", row.verdict), ("Reason", row.reason)]
    url = reverse("payments:delivery", args=[id])
    transaction, both = sides_of(row)
    meaning = meaning_of(transaction, row)
    name = f"{row.event_type or row.verdict} delivery of {row.order_id or row.provider}"
    return Subject(
        name, url, note=meaning.told, accepting=meaning.accepting, facts=facts, lines=both
    )


def _row(id: UUID) -> Subject:
    row = get_object_or_404(ReconciliationRow, pk=id)
    url = reverse("payments:reconciliation", args=[row.reconciliation_id])
    facts = [("Finding", row.finding.replace("_", " ")), ("Difference", row.difference)]
    name = f"payment {row.payment_id or row.order_id}"
    return Subject(
        name,
        f"{url}?finding={row.finding}",
        seen=f"{row.finding}: {row.difference}",
        facts=facts,
        lines=lines(row.ours, row.theirs),
    )


def _fulfil(id: UUID, actor: str, reason: str) -> str:
    ledger.fulfil_again(id, actor=actor, reason=reason)
    return "The order's fulfilment is enqueued."


def _accept(id: UUID, actor: str, reason: str) -> str:
    ledger.handle_delivery(id, accept=True, actor=actor, reason=reason)
    return "Accepted: the ledger now has what the delivery says."


def _set_aside(id: UUID, actor: str, reason: str) -> str:
    ledger.handle_delivery(id, accept=False, actor=actor, reason=reason)
    return "Set aside: the ledger stays as it is."


def _record(id: UUID, actor: str, reason: str) -> str:
    receipt = decisions.apply_row(id, actor, reason)
    return decisions.what_became(receipt)


def _set_row_aside(id: UUID, actor: str, reason: str) -> str:
    decisions.set_aside_row(id, actor, reason)
    return "Set aside: the ledger stays as it is."


ACTS = {
    "fulfil": Act(
        "payments.fulfil_transaction",
        "Fulfil…",
        "Fulfil {}",
        "The order's fulfilment is enqueued; whatever runs twice, its effect is recorded once.",
        "payments:fulfil",
        _payment,
        _fulfil,
        primary=True,
    ),
    "accept": Act(
        "payments.handle_webhookdelivery",
        "Accept what it says…",
        "Accept the {}",
        "",
        "payments:accept",
        _delivery,
        _accept,
        danger=True,
    ),
    "set_aside": Act(
        "payments.handle_webhookdelivery",
        "Set aside…",
        "Set the {} aside",
        "The ledger stays as it is, and the delivery is no longer asked about.",
        "payments:set_aside",
        _delivery,
        _set_aside,
    ),
    "record": Act(
        "payments.reconcile_transaction",
        "Record it…",
        "Record what the provider says of {}",
        "It is recorded as if its webhook had come now: an order that becomes paid is fulfilled,"
        " or held where nobody announced it and such orders are held, and what contradicts the ledger"
        " becomes a mismatch.",
        "payments:record",
        _row,
        _record,
        primary=True,
    ),
    "set_row_aside": Act(
        "payments.reconcile_transaction",
        "Set aside…",
        "Set the difference of {} aside",
        "The ledger stays as it is; the difference stays set aside while the same is found again.",
        "payments:set_row_aside",
        _row,
        _set_row_aside,
    ),
}


def offered(may: Callable[[str], bool], names: Sequence[str]) -> list[Act]:
    """Those of these acts that this person may do."""
    return [ACTS[name] for name in names if may(ACTS[name].permission)]


@require_http_methods(["GET", "HEAD", "POST"])
@staff_with("payments.view_transaction")
def act(request: HttpRequest, name: str, id: UUID) -> HttpResponse:
    """Ask for the word and the reason; with both, do it and lead back. A bare address, as after a
    reload, leads to the subject's page."""
    chosen = ACTS[name]
    if not request.user.has_perm(chosen.permission):
        raise PermissionDenied(chosen.permission)
    subject = chosen.subject(id)
    back = _way_back(request, subject)
    if request.method != "POST":
        return redirect(subject.url)
    reason = request.POST.get("reason", "")
    if not request.POST.get("confirmed") or not reason.strip():
        context = {
            "act": chosen,
            "lead": chosen.lead or subject.accepting,
            "subject": subject,
            "title": chosen.title.format(subject.name),
            "id": id,
            "back": back,
            "reason": reason,
            "error": "Say why: a reason is needed." if request.POST.get("confirmed") else "",
        }
        return render(request, "payments/confirm.html", context)
    try:
        if request.POST.get("seen", subject.seen) != subject.seen:
            raise ActRefused("Nothing was done: it says something else by now. Look at it again.")
        told = chosen.do(id, request.user.get_username(), reason)
    except decisions.KeptAsMismatch as error:
        link = '{} <a href="{}">See the delivery</a>'
        url = reverse("payments:delivery", args=[error.delivery_id])
        messages.error(request, format_html(link, error, url))
    except ActRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, told)
    return redirect(back)


def _way_back(request: HttpRequest, subject: Subject) -> str:
    """The subject's page, or the list of open differences where the person came from there."""
    asked, listed = request.POST.get("back", ""), reverse("payments:differences")
    return asked if asked == listed or asked.startswith(f"{listed}?") else subject.url
