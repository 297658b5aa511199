"""What the lists' URLs ask for. Unknown values are kept out and named in `problems`.

A span of days is one of ids, which are made in the order of time: it bounds every index that a list
is read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import QueryDict

from payments.console.attention import (
    contradicted,
    differences_by_provider,
    held,
    ids_of,
    open_deliveries,
    open_differences,
    unfulfilled,
)
from payments.console.totals import known, midnight
from payments.models import OrderPayment, ReconciliationRow, Transaction, WebhookDelivery
from queues.clean import storable_text
from queues.console.keyset import Order, first_id
from queues.models import CALENDAR

NEWEST: Order = (("id",), True)
OLDEST_PAID: Order = (("paid_at", "id"), False)
OLDEST_RECEIVED: Order = (("received_at", "id"), False)

ATTENTION = {
    "any": "needs attention",
    "unfulfilled": "paid, not fulfilled",
    "held": "held",
    "mismatch": "open mismatch",
}


class _Query:
    """Reads a URL's query and collects what is wrong with it."""

    def __init__(self, query: QueryDict) -> None:
        self._query = query
        self.problems: list[str] = []

    def text(self, name: str) -> str:
        return storable_text(self._query.get(name, "")).strip()

    def choice(self, name: str, known: Any) -> str:
        value: str = self._query.get(name, "")
        if value and value not in known:
            self.problems.append(f"There is no {name} {value!r}; all are shown.")
            return ""
        return value

    def day(self, name: str) -> date | None:
        text = self._query.get(name, "").strip()
        try:
            day = date.fromisoformat(text) if text else None
        except ValueError:
            day = None
        if text and (day is None or not CALENDAR[0].year < day.year < CALENDAR[1].year):
            self.problems.append(f"{text!r} is no date; write it as 2026-01-31.")
            return None
        return day


def _within(rows: QuerySet[Any], since: date | None, until: date | None) -> QuerySet[Any]:
    if since:
        rows = rows.filter(pk__gte=first_id(midnight(since)))
    if until:
        rows = rows.filter(pk__lt=first_id(midnight(until + timedelta(1))))
    return rows


def _paid_by(payment_id: str, providers: Sequence[str]) -> list[UUID]:
    """The transactions for which a payment was tried. They are looked up before the list that they
    choose, so that it is read from its own indexes."""
    tried = OrderPayment.objects.filter(provider__in=providers, payment_id=payment_id)
    return list(tried.values_list("transaction_id", flat=True)[:10])


@dataclass(frozen=True)
class PaymentFilter:
    """The list of payments. `q`: a whole order id, payment id or e-mail address. `since`, `until`:
    the days on which we first heard of the order."""

    status: str = ""
    provider: str = ""
    currency: str = ""
    attention: str = ""
    q: str = ""
    since: date | None = None
    until: date | None = None
    providers: tuple[str, ...] = ()
    currencies: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: QueryDict) -> PaymentFilter:
        asked = _Query(query)
        providers = sorted({*known("provider"), *settings.PAYMENT_PROVIDERS})
        currencies = known("currency")
        return cls(
            status=asked.choice("status", Transaction.Status.values),
            provider=asked.choice("provider", providers),
            currency=asked.choice("currency", currencies),
            attention=asked.choice("attention", ATTENTION),
            q=asked.text("q"),
            since=asked.day("since"),
            until=asked.day("until"),
            providers=tuple(providers),
            currencies=tuple(currencies),
            problems=tuple(asked.problems),
        )

    def rows(self) -> QuerySet[Transaction]:
        rows = _within(self._attention(), self.since, self.until)
        for name in ("status", "provider", "currency"):
            if value := getattr(self, name):
                rows = rows.filter(**{name: value})
        if self.q:
            rows = rows.filter(
                Q(order_id=self.q)
                | Q(pk__in=_paid_by(self.q, self.providers))
                | Q(email__in={self.q, self.q.lower()})
            )
        return rows

    def _attention(self) -> QuerySet[Transaction]:
        match self.attention:
            case "unfulfilled":
                return unfulfilled()
            case "held":
                return held()
            case "mismatch":
                return Transaction.objects.filter(pk__in=contradicted())
            case "any":
                paid = [ids_of(unfulfilled(), "paid_at"), ids_of(held(), "paid_at")]
                return Transaction.objects.filter(pk__in={*contradicted(), *chain(*paid)})
        return Transaction.objects.all()

    @property
    def is_summable(self) -> bool:
        """Whether the sums of days, which are kept by currency, are those of what is asked for."""
        return not (self.status or self.provider or self.attention or self.q)

    @property
    def attention_label(self) -> str:
        return ATTENTION.get(self.attention, "")

    @property
    def order(self) -> Order:
        return OLDEST_PAID if self.attention in ("unfulfilled", "held") else NEWEST

    @property
    def is_empty(self) -> bool:
        chosen = (self.status, self.provider, self.currency, self.attention, self.q)
        return not (any(chosen) or self.since or self.until)


@dataclass(frozen=True)
class DeliveryFilter:
    """The list of deliveries. `q`: a whole order id, payment id or event id. `open`: those that wait
    for a person, the oldest first."""

    verdict: str = ""
    provider: str = ""
    open: bool = False
    q: str = ""
    since: date | None = None
    until: date | None = None
    providers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: QueryDict) -> DeliveryFilter:
        asked = _Query(query)
        providers = sorted({*known("provider"), *settings.PAYMENT_PROVIDERS})
        verdict = asked.choice("verdict", WebhookDelivery.Verdict.values)
        return cls(
            verdict=verdict,
            provider=asked.choice("provider", providers),
            open=verdict in ("", "mismatch", "rejected") and bool(query.get("open")),
            q=asked.text("q"),
            since=asked.day("since"),
            until=asked.day("until"),
            providers=tuple(providers),
            problems=tuple(asked.problems),
        )

    def rows(self) -> QuerySet[WebhookDelivery]:
        every = open_deliveries() if self.open else WebhookDelivery.objects.all()
        rows = _within(every.defer("body", "headers", "claim"), self.since, self.until)
        if self.verdict:
            rows = rows.filter(verdict=self.verdict)
        if self.provider:
            rows = rows.filter(provider=self.provider)
        return rows.filter(self._named()) if self.q else rows

    def _named(self) -> Q:
        """Each part as its own index has it."""
        event = Q(provider__in=self.providers, event_id=self.q)
        return (
            Q(order_id=self.q)
            | Q(transaction_id__in=_paid_by(self.q, self.providers))
            | event & ~Q(verdict__in=["duplicate", "rejected"])
            | event & Q(verdict="duplicate")
        )

    @property
    def order(self) -> Order:
        return OLDEST_RECEIVED if self.open else NEWEST

    @property
    def is_empty(self) -> bool:
        chosen = (self.verdict, self.provider, self.open, self.q, self.since, self.until)
        return not any(chosen)


@dataclass(frozen=True)
class DifferenceFilter:
    """The list of open differences."""

    provider: str = ""
    finding: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: QueryDict) -> DifferenceFilter:
        asked = _Query(query)
        providers = {
            *settings.PAYMENT_PROVIDERS,
            *(one.provider for one in differences_by_provider()),
        }
        return cls(
            provider=asked.choice("provider", providers),
            finding=asked.choice("finding", ReconciliationRow.Finding.values),
            problems=tuple(asked.problems),
        )

    def rows(self) -> QuerySet[ReconciliationRow]:
        rows = open_differences()
        if self.provider:
            rows = rows.filter(provider=self.provider)
        return rows.filter(finding=self.finding) if self.finding else rows
