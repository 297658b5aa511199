"""A second look at what is open, at the end of a comparison: what agrees by now is closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import F, JSONField, Q, QuerySet
from django.db.models.expressions import RawSQL

from payments.comparison import BATCH, Comparison, Ledger
from payments.judgement import Judgement, json_of_ours, payment_of
from payments.models import Reconciliation, ReconciliationRow, Transaction
from payments.providers.base import Payment
from queues.models import DatabaseClock

Row = ReconciliationRow
Source = Reconciliation.Source


class Open(NamedTuple):
    """An open row, what the provider said, without its own object, which may be long, and who told."""

    row: Row
    theirs: Payment | None
    source: str


def judge_again(comparison: Comparison) -> None:
    """Compare the open rows that this run did not find, of any earlier one of its provider, with the
    ledger as it is now.

    Closed, by nobody, are those that agree now with what the provider said then, those whose payment
    agrees with what it says now, and those missing there whose payment this run was shown.
    """
    for page in _open_before(comparison.run):
        comparison.step()
        _judge(comparison, page)


def _open_before(run: Reconciliation) -> Iterator[list[Open]]:
    """The provider's open rows that were found before the run began, a batch at a time."""
    rows = _still_open(run).defer("ours", "theirs").order_by("order_id", "payment_id")
    rows = rows.annotate(
        said=RawSQL("theirs - 'raw'", [], JSONField()), source=F("reconciliation__source")
    )
    page = list(rows[:BATCH])
    while page:
        yield [
            Open(row, payment_of({**row.said, "raw": {}}) if row.said else None, row.source)
            for row in page
        ]
        last = page[-1]
        after = Q(order_id__gte=last.order_id) & (
            Q(order_id__gt=last.order_id) | Q(payment_id__gt=last.payment_id)
        )
        page = list(rows.filter(after)[:BATCH]) if len(page) == BATCH else []


def _still_open(run: Reconciliation) -> QuerySet[Row]:
    return Row.objects.filter(
        provider=run.provider, handled_at__isnull=True, found_at__lt=run.started_at
    )


def _judge(comparison: Comparison, page: list[Open]) -> None:
    run = comparison.run
    ledger = Ledger(run.provider, [one.theirs for one in page if one.theirs])
    agreed = comparison.agreed.among(one.row.payment_id for one in page)
    told = comparison.told.among(one.row.payment_id for one in page)
    shown = comparison.shown.among(str(one.row.transaction_id) for one in page)
    closed, stale = [], []
    for row, theirs, source in page:
        # What a file says is of an unknown day: it cannot speak against the provider itself.
        may_close = run.source == Source.PROVIDER or source == Source.STATEMENT
        if theirs is None:
            if str(row.transaction_id) in shown:
                closed.append(row.pk)
        elif row.payment_id in told:
            # Told by this run under the name that its order has now, or as one that was set aside.
            stale.append(row.pk)
        else:
            ours, judgement = ledger.judge(theirs)
            if judgement.outcome in ("agreed", "ignored") or (
                may_close and row.payment_id in agreed
            ):
                closed.append(row.pk)
            else:
                _bring_up_to_date(run, row, ours, judgement)
    _still_open(run).filter(pk__in=closed).update(handled_at=DatabaseClock())
    _still_open(run).filter(pk__in=stale).delete()


def _bring_up_to_date(
    run: Reconciliation, row: Row, ours: Transaction | None, judgement: Judgement
) -> None:
    """Have a row say how the two sides differ now, if the ledger has changed since."""
    if (row.finding, row.difference) != judgement:
        _still_open(run).filter(pk=row.pk).update(
            finding=judgement.outcome,
            difference=judgement.difference,
            ours=ours and json_of_ours(ours),
            transaction_id=ours.pk if ours else None,
        )
