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

from django.db.models import Q

from payments.judgement import WITH_MONEY, json_of_ours, json_of_theirs, judge, words
from payments.models import Reconciliation, ReconciliationRow, Transaction
from payments.providers.base import Payment
from queues.clean import storable_text

# News of what is younger may still be on its way, to us or into the provider's books.
GRACE = timedelta(minutes=10)
BATCH = 500

Step = Callable[[], None]
Finding = ReconciliationRow.Finding
T = TypeVar("T")


class Ledger:
    """The rows of ours that a batch of payments can belong to: those of the payments, else those of
    their orders."""

    def __init__(self, provider: str, batch: Sequence[Payment]) -> None:
        payment_ids = [theirs.payment_id for theirs in batch]
        order_ids = [theirs.order_id for theirs in batch if theirs.order_id]
        mine = Q(provider=provider, payment_id__in=payment_ids)
        rows = list(Transaction.objects.filter(mine | Q(order_id__in=order_ids)))
        self._of_payment = {row.payment_id: row for row in rows if row.provider == provider}
        self._of_order = {row.order_id: row for row in rows}

    def row(self, theirs: Payment) -> Transaction | None:
        found = self._of_payment.get(theirs.payment_id)
        return found or (self._of_order.get(theirs.order_id) if theirs.order_id else None)


class Comparison:
    """One comparison under way: it counts what agrees and writes down what does not.

    step: called now and then, so that the caller can end it by raising.
    """

    def __init__(self, run: Reconciliation, step: Step) -> None:
        self.run = run
        self.counts: Counter[str] = Counter()
        self.settled_before = run.started_at - GRACE
        self.step = step
        self._payments = Seen()
        self._transactions = Seen()

    def close(self) -> None:
        self._payments.close()
        self._transactions.close()

    def compare(self, payments: Iterable[Payment]) -> None:
        """Compare these; a payment that came before is passed over."""
        for batch in batches(payments, BATCH):
            self.step()
            known = self._payments.among(theirs.payment_id for theirs in batch)
            fresh = {t.payment_id: t for t in batch if t.payment_id not in known}
            self._payments.add(fresh)
            self._compare(list(fresh.values()))

    def _compare(self, batch: list[Payment]) -> None:
        ledger = Ledger(self.run.provider, batch)
        rows = []
        seen = set()
        for theirs in batch:
            ours = ledger.row(theirs)
            if ours and (theirs.status in WITH_MONEY or ours.payment_id == theirs.payment_id):
                seen.add(str(ours.id))
            outcome, difference = judge(self.run.provider, ours, theirs)
            if outcome == "agreed":
                self.counts[outcome] += 1
            elif outcome != "ignored" and not self._is_in_flight(ours, theirs):
                rows.append(self._row(Finding(outcome), ours, theirs, difference))
        self._transactions.add(seen)
        self._write(rows)

    def _is_in_flight(self, ours: Transaction | None, theirs: Payment) -> bool:
        moments = [theirs.created_at, ours.updated_at if ours else None]
        return any(moment is not None and moment > self.settled_before for moment in moments)

    def unseen(self, rows: Iterable[Transaction]) -> list[Transaction]:
        """Those of our rows whose money no payment has shown so far."""
        rows = list(rows)
        seen = self._transactions.among(str(row.id) for row in rows)
        return [row for row in rows if str(row.id) not in seen]

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
            reconciliation=self.run,
            finding=finding,
            order_id=order_id,
            payment_id=payment_id,
            difference=storable_text(difference),
            ours=ours and json_of_ours(ours),
            theirs=theirs and json_of_theirs(theirs),
            transaction_id=ours.id if ours else None,
        )

    def _write(self, rows: list[ReconciliationRow]) -> None:
        """Write them down; what a person has set aside before stays set aside while it is the same."""
        if not rows:
            return
        before = {
            _sameness(row): row
            for row in ReconciliationRow.objects.filter(
                reconciliation__provider=self.run.provider,
                handled_at__isnull=False,
                delivery_id__isnull=True,
                order_id__in={row.order_id for row in rows},
            ).defer("ours", "theirs")
        }
        for row in rows:
            self.counts[row.finding] += 1
            if earlier := before.get(_sameness(row)):
                row.handled_at, row.handled_by = earlier.handled_at, earlier.handled_by
        ReconciliationRow.objects.bulk_create(rows)


def _sameness(row: ReconciliationRow) -> tuple[str, ...]:
    return (str(row.finding), row.order_id, row.payment_id, row.difference)


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
