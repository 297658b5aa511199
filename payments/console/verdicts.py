"""What the overview says of payments, each with the button to the page that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import urlencode

from django.urls import reverse

from payments.console.attention import CAP, AtRisk, attention
from payments.reconcile import left_out
from queues.console import verdicts
from queues.console.formats import count, duration, number
from queues.console.snapshot import Snapshot
from queues.console.verdicts import Problem


def connect() -> None:
    """Plug the verdicts into the overview."""
    for check in (
        paid_but_not_fulfilled,
        held_orders,
        unread_deliveries,
        mismatches,
        differences,
        broken_comparisons,
        partial_comparisons,
    ):
        verdicts.register(check)


def paid_but_not_fulfilled(snapshot: Snapshot) -> Iterable[Problem]:
    """Money taken and nothing given for it, for longer than a while."""
    late = attention().unfulfilled
    if late.count:
        yield Problem(
            130,
            f"{count(late.count, 'order')} paid but not fulfilled",
            f"{_oldest(late, snapshot.at)} {_at_risk(late)}",
            "See the orders",
            reverse("payments:list") + "?attention=unfulfilled",
            "payments.view_transaction",
        )


def held_orders(snapshot: Snapshot) -> Iterable[Problem]:
    """Orders that nobody announced, paid and held for a person."""
    held = attention().held
    if held.count:
        yield Problem(
            125,
            f"{count(held.count, 'paid order')} held for a person",
            f"Nobody announced {'it' if held.count == 1 else 'them'}. "
            f"{_oldest(held, snapshot.at)} {_at_risk(held)}",
            "Fulfil or refund",
            reverse("payments:list") + "?attention=held",
            "payments.view_transaction",
        )


def unread_deliveries(snapshot: Snapshot) -> Iterable[Problem]:
    """Genuine news of a provider that is in no order's row."""
    found = attention().unread
    one = found.count == 1
    if found.count:
        yield Problem(
            122,
            f"{number(found.count)} signed deliver{'y' if one else 'ies'} could not be read:"
            f" {'it' if one else 'they'} may be money",
            f"{_came(found, snapshot.at)} Read the reason, reconcile with the provider, then set"
            f" {'it' if one else 'them'} aside.",
            "Read the reason" if one else "Read the reasons",
            reverse("payments:deliveries") + "?verdict=rejected&open=1",
            "payments.view_webhookdelivery",
        )


def mismatches(snapshot: Snapshot) -> Iterable[Problem]:
    """Deliveries that tell otherwise than the ledger: a person must look."""
    found = attention().mismatches
    if found.count:
        yield Problem(
            120,
            f"{count(found.count, 'webhook')} contradict{'s' if found.count == 1 else ''} the ledger",
            f"{_came(found, snapshot.at)} Nothing was changed.{_told_money(found)}",
            "See both values",
            reverse("payments:deliveries") + "?verdict=mismatch&open=1",
            "payments.view_webhookdelivery",
        )


def differences(snapshot: Snapshot) -> Iterable[Problem]:
    """What comparisons with a provider's books found, and nobody has dealt with."""
    for one in attention().differences:
        age = duration((snapshot.at - one.oldest).total_seconds())
        yield Problem(
            110,
            f"{count(one.count, 'payment')} of {one.provider} differ{'s' if one.count == 1 else ''}"
            " from its books",
            f"{'It' if one.count == 1 else 'The oldest difference'} was found {age} ago.",
            "See both sides",
            f"{reverse('payments:differences')}?{urlencode({'provider': one.provider})}",
            "payments.view_reconciliation",
        )


def broken_comparisons(snapshot: Snapshot) -> Iterable[Problem]:
    """A provider that could not be asked to the end: what it knows is not compared."""
    for run in attention().broken:
        yield Problem(
            75,
            f"The ledger could not be compared with {run.provider}",
            run.error[:300],
            "See the run",
            reverse("payments:reconciliation", args=[run.pk]),
            "payments.view_reconciliation",
        )


def partial_comparisons(snapshot: Snapshot) -> Iterable[Problem]:
    """A comparison that could not look at everything: what it left out may differ."""
    for run in attention().partial:
        yield Problem(
            72,
            f"The ledger was compared with {run.provider} in part",
            left_out(run),
            "See the run",
            reverse("payments:reconciliation", args=[run.pk]),
            "payments.view_reconciliation",
        )


def _oldest(pile: AtRisk, now: datetime) -> str:
    if pile.oldest is None:
        return ""
    return f"The oldest was paid {duration((now - pile.oldest).total_seconds())} ago."


def _came(pile: AtRisk, now: datetime) -> str:
    if pile.oldest is None:
        return ""
    age = duration((now - pile.oldest).total_seconds())
    return f"{'It' if pile.count == 1 else 'The oldest'} came {age} ago."


def _told_money(pile: AtRisk) -> str:
    least = "at least " if pile.count > CAP else ""
    return f" Money at risk: {least}{pile.amounts}." if pile.money else ""


def _at_risk(pile: AtRisk) -> str:
    least = "at least " if attention().capped else ""
    return f"Money at risk: {least}{pile.amounts}."
