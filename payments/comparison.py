"""Comparing payments, as a provider's books or a statement have them, with the ledger.

Nothing here changes the ledger. Both sides are read in batches, so that a span may hold any number of
payments.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import structlog

from payments import findings
from payments.judgement import (
    WITH_MONEY,
    Judgement,
    json_of_ours,
    json_of_theirs,
    judge,
    words,
)
from payments.models import OrderPayment, Reconciliation, ReconciliationRow, Transaction
from payments.providers.base import Booked, Payment, Unread
from queues.clean import storable_text

log = structlog.get_logger(__name__)

# News of what is younger may still be on its way, to us or into the provider's books.
GRACE = timedelta(minutes=10)
BATCH = 500

Step = Callable[[], None]
Finding = ReconciliationRow.Finding
T = TypeVar("T")


class Ledger:
    """What we have of a batch of payments: the order that each is known for, else the order that it
    names. Any payment that was tried for an order is known."""

    def __init__(self, provider: str, batch: Sequence[Payment]) -> None:
        self._provider = provider
        tried = OrderPayment.objects.filter(
            provider=provider, payment_id__in={theirs.payment_id for theirs in batch}
        )
        self._tried = {one.payment_id: one for one in tried.select_related("transaction")}
        named = {theirs.order_id for theirs in batch if theirs.order_id}
        orders = Transaction.objects.filter(order_id__in=named) if named else []
        self._orders = {row.order_id: row for row in orders}

    def tried(self, theirs: Payment) -> OrderPayment | None:
        return self._tried.get(theirs.payment_id)

    def row(self, theirs: Payment) -> Transaction | None:
        if tried := self.tried(theirs):
            return tried.transaction
        return self._orders.get(theirs.order_id) if theirs.order_id else None

    def judge(self, theirs: Payment) -> tuple[Transaction | None, Judgement]:
        """The row that a payment belongs to, and how the two compare."""
        ours = self.row(theirs)
        return ours, judge(self._provider, ours, self.tried(theirs), theirs)


class Comparison:
    """One comparison under way: it counts what agrees and writes down what does not.

    step: called now and then, so that the caller can end it by raising. agreed, told: the ids of
    payments that agree, or change nothing, and of those that were written down. shown: the ids of our
    rows whose money the other side has.
    """

    def __init__(self, run: Reconciliation, step: Step) -> None:
        self.run = run
        self.counts: Counter[str] = Counter()
        self.settled_before = run.started_at - GRACE
        self.step = step
        self.agreed, self.told, self.shown = Seen(), Seen(), Seen()
        self._payments = Seen()

    def close(self) -> None:
        for seen in (self.agreed, self.told, self.shown, self._payments):
            seen.close()

    def compare(self, payments: Iterable[Booked]) -> None:
        """Compare these; a payment that came before is passed over."""
        for batch in batches(payments, BATCH):
            self.step()
            known = self._payments.among(one.payment_id for one in batch if one.payment_id)
            fresh = {
                one.payment_id or place: one
                for place, one in enumerate(batch)
                if one.payment_id not in known
            }
            self._payments.add(one.payment_id for one in fresh.values() if one.payment_id)
            self._compare([one for one in fresh.values() if isinstance(one, Payment)])
            self._note_unread([one for one in fresh.values() if isinstance(one, Unread)])

    def _compare(self, batch: list[Payment]) -> None:
        ledger = Ledger(self.run.provider, batch)
        rows, shown, agreed = [], set(), set()
        for theirs in batch:
            ours, (outcome, difference) = ledger.judge(theirs)
            if ours and (theirs.status in WITH_MONEY or ours.payment_id == theirs.payment_id):
                shown.add(str(ours.pk))
            if outcome in ("agreed", "ignored"):
                agreed.add(theirs.payment_id)
                self.counts[outcome] += 1
            elif not self._is_in_flight(ours, ledger.tried(theirs), theirs):
                rows.append(self._row(Finding(outcome), ours, theirs, difference))
        self.shown.add(shown)
        self.agreed.add(agreed)
        self._write(rows)
        self.told.add(row.payment_id for row in rows)

    def _is_in_flight(
        self, ours: Transaction | None, tried: OrderPayment | None, theirs: Payment
    ) -> bool:
        moments = [theirs.created_at, *(one.updated_at for one in (ours, tried) if one)]
        return any(moment is not None and moment > self.settled_before for moment in moments)

    def _note_unread(self, unread: Sequence[Unread]) -> None:
        """Count payments that cannot be read. Those that we know are there, whatever they say."""
        for one in unread:
            self.counts["unread"] += 1
            log.warning(
                "a payment of the books cannot be read",
                provider=self.run.provider,
                payment_id=one.payment_id,
                reason=one.reason,
            )
        ids = [one.payment_id for one in unread if one.payment_id]
        known = OrderPayment.objects.filter(provider=self.run.provider, payment_id__in=ids)
        if ids:
            self.shown.add(str(id) for id in known.values_list("transaction_id", flat=True))

    def unseen(self, rows: Iterable[Transaction]) -> list[Transaction]:
        """Those of our rows whose money no payment has shown so far."""
        rows = list(rows)
        shown = self.shown.among(str(row.id) for row in rows)
        return [row for row in rows if str(row.id) not in shown]

    def missing_there(self, rows: Iterable[Transaction]) -> None:
        """Write down that the other side does not show these of ours."""
        for batch in batches(rows, BATCH):
            self._write(
                [
                    self._row(
                        Finding.MISSING_THERE, ours, None, f"{words(ours.status)} here, not there"
                    )
                    for ours in batch
                ]
            )

    def _row(
        self, finding: Finding, ours: Transaction | None, theirs: Payment | None, difference: str
    ) -> ReconciliationRow:
        order_id = (ours and ours.order_id) or (theirs and theirs.order_id) or ""
        payment_id = (theirs and theirs.payment_id) or (ours and ours.payment_id) or ""
        return ReconciliationRow(
            finding=finding,
            order_id=order_id,
            payment_id=payment_id,
            difference=storable_text(difference),
            ours=ours and json_of_ours(ours),
            theirs=theirs and json_of_theirs(theirs),
            transaction_id=ours.id if ours else None,
        )

    def _write(self, rows: list[ReconciliationRow]) -> None:
        for row in rows:
            self.counts[row.finding] += 1
        findings.write(self.run, rows)


class Seen:
    """A set of texts that spills to disk: a temporary database of SQLite's own, gone when closed."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, keys: Iterable[str]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((key,) for key in keys))
        self._db.execute("COMMIT")

    def among(self, keys: Iterable[str]) -> set[str]:
        """Those of at most some hundred keys that were added."""
        wanted = list(keys)
        places = ",".join("?" * len(wanted))
        statement = f"SELECT key FROM seen WHERE key IN ({places})"  # noqa: S608
        with closing(self._db.execute(statement, wanted)) as cursor:
            return {key for (key,) in cursor}

    def close(self) -> None:
        self._db.close()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
