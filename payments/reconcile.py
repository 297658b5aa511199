"""Reconciliation: a provider is asked for its books, they are compared with the ledger, and a person
decides about each difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.db import DatabaseError
from django.db.models import Q, QuerySet

from payments import review
from payments.comparison import BATCH, Comparison, Step, batches
from payments.models import Reconciliation, Transaction
from payments.providers.base import Booked, Provider, ProviderError, load
from queues.clean import storable_text
from queues.console.formats import count
from queues.database import query
from queues.models import DatabaseClock

# Of how many orders a provider is asked one by one: those it did not list, unpaid and paid ones.
ASKED_AT_MOST = 1000
# How long a payment can stay authorized until it is captured or given up.
AUTHORIZATION_LIVES = timedelta(days=7)
Status = Transaction.Status
# What a run counts: what was compared, and what it could not look at.
FINDINGS = ("agreed", "missing_here", "missing_there", "different")
LEFT_OUT = ("unread", "not_asked")


def now() -> datetime:
    """The database's clock, which is the one of the ledger."""
    moment: datetime = query("SELECT clock_timestamp()", [])[0][0]
    return moment


def reconcile(
    provider_name: str,
    since: datetime,
    until: datetime,
    actor: str = "",
    step: Step = lambda: None,
) -> Reconciliation:
    """Compare the ledger with a provider's books: the payments made from `since` until `until`, the
    orders of that span that we hold as unpaid, and those that were paid in it.

    Changes nothing in the ledger. The differences are the run's rows, open until a person or a later
    run closes them; what is younger than GRACE is not judged. `step` is called between batches and requests; what it raises ends the run.
    Raises UnknownProvider, NotConfigured, ProviderError; the last two are kept as the run's error.
    """
    provider = load(provider_name)
    run = Reconciliation.objects.create(
        provider=provider_name,
        source=Reconciliation.Source.PROVIDER,
        since=since,
        until=until,
        actor=storable_text(actor),
    )
    with comparing(run, step) as comparison:
        comparison.compare(provider.payments(since, until))
        open_orders = unpaid(comparison, since, until)
        _ask_for(open_orders, partial(_payments_of, provider), comparison)
        _ask_for(paid(comparison, since, until), partial(_payment_of, provider), comparison)
        for page in paid(comparison, since, until):
            comparison.missing_there(comparison.unseen(page))
    return run


@contextmanager
def comparing(run: Reconciliation, step: Step) -> Iterator[Comparison]:
    """A comparison whose counts, end and error are written into its run, and after which what was
    open before is judged again, also where the provider did not answer to the end."""
    with closing(Comparison(run, step)) as comparison:
        try:
            try:
                yield comparison
            except ProviderError:
                review.judge_again(comparison)
                raise
            review.judge_again(comparison)
        except BaseException as error:
            # Where the database itself fails, its own error is the one to raise.
            with suppress(DatabaseError):
                _finish(run, comparison, str(error) or type(error).__name__)
            raise
        _finish(run, comparison)


def _finish(run: Reconciliation, comparison: Comparison, error: str = "") -> None:
    Reconciliation.objects.filter(pk=run.pk).update(
        **{name: comparison.counts[name] for name in (*FINDINGS, *LEFT_OUT)},
        error=storable_text(error)[:2000],
        finished_at=DatabaseClock(),
    )
    run.refresh_from_db()


def unpaid(comparison: Comparison, since: datetime, until: datetime) -> Iterator[list[Transaction]]:
    """Our orders of the span that are unpaid, and those whose authorization may still live."""
    created = Q(id__gte=first_id(since))
    waiting = Q(status=Status.AUTHORIZED, id__gte=first_id(since - AUTHORIZATION_LIVES))
    rows = Transaction.objects.filter(
        created | waiting,
        provider=comparison.run.provider,
        status__in=[Status.CREATED, Status.AUTHORIZED, Status.FAILED],
        created_at__lt=min(until, comparison.settled_before),
    ).order_by("-id")
    return _pages(rows, lambda last: Q(id__lt=last.id))


def paid(comparison: Comparison, since: datetime, until: datetime) -> Iterator[list[Transaction]]:
    """Our orders that were paid within the span. Of an order of nothing no books show a payment."""
    rows = Transaction.objects.filter(
        provider=comparison.run.provider,
        status__in=Transaction.SETTLED,
        amount__gt=0,
        paid_at__gte=since,
        paid_at__lt=min(until, comparison.settled_before),
    ).order_by("paid_at", "id")
    return _pages(
        rows,
        lambda last: (
            Q(paid_at__gte=last.paid_at) & (Q(paid_at__gt=last.paid_at) | Q(id__gt=last.id))
        ),
    )


def _pages(
    rows: QuerySet[Transaction], after: Callable[[Transaction], Q]
) -> Iterator[list[Transaction]]:
    """Ordered rows, BATCH at a time, each page beginning after the last row of the one before."""
    page = list(rows[:BATCH])
    while page:
        yield page
        page = list(rows.filter(after(page[-1]))[:BATCH]) if len(page) == BATCH else []


def first_id(moment: datetime) -> UUID:
    """The least id that a row written at this moment can have (see new_task_id)."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def _ask_for(
    pages: Iterator[list[Transaction]],
    ask: Callable[[Transaction], Sequence[Booked]],
    comparison: Comparison,
) -> None:
    """Ask for orders whose payment the listing did not show, the most that are asked for; the others
    are counted."""
    left = ASKED_AT_MOST
    for page in pages:
        comparison.step()
        unseen = comparison.unseen(page)
        for batch in batches(unseen[:left], 50):
            found: list[Booked] = []
            for row in batch:
                comparison.step()
                found += ask(row)
            comparison.compare(found)
        comparison.counts["not_asked"] += max(0, len(unseen) - left)
        left = max(0, left - len(unseen))


def _payments_of(provider: Provider, row: Transaction) -> Sequence[Booked]:
    """What the provider has of an order; of one without a name of its own, its payment."""
    if row.payment_id is not None and row.payment_id == row.order_id:
        found = provider.payment(row.payment_id)
        return [found] if found else []
    return provider.payments_of(row.order_id)


def _payment_of(provider: Provider, row: Transaction) -> Sequence[Booked]:
    """The payment that paid an order, or, where the provider does not have it, its others."""
    found = provider.payment(row.payment_id) if row.payment_id else None
    return [found] if found else _payments_of(provider, row)


def left_out(run: Reconciliation) -> str:
    """What a comparison did not look at, in a sentence for each; empty where it looked at everything."""
    told = []
    if run.unread:
        them = "it" if run.unread == 1 else "them"
        payments = count(run.unread, "payment")
        told.append(f"{payments} of its books could not be read; the log names {them}.")
    if run.not_asked:
        were = "was" if run.not_asked == 1 else "were"
        told.append(
            f"{count(run.not_asked, 'order')} that its listing did not show {were} not asked for one"
            " by one."
        )
    return " ".join(told)
