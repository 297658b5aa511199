"""Statements: a provider's export of its payments, read from a CSV file and compared with the ledger."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO

from payments.comparison import Step
from payments.models import Reconciliation
from payments.providers.base import Payment, load
from payments.reconcile import comparing, paid
from payments.statement_lines import Columns
from queues.clean import storable_text

# A payment is made before it is paid: what was paid near a statement's ends may stand in another one.
MARGIN = timedelta(hours=1)
MOST_TOLD = 20
LONGEST_LINE_BYTES = 1024 * 1024


class BadStatement(ValueError):
    """The statement cannot be read and nothing was written. The message names lines and remedies."""


@dataclass
class Span:
    """From when to when the payments of a statement were made, as far as it tells."""

    since: datetime | None = None
    until: datetime | None = None

    def take_in(self, moment: datetime) -> None:
        self.since = min(self.since or moment, moment)
        self.until = max(self.until or moment, moment)


def reconcile_statement(
    provider_name: str,
    file: IO[bytes],
    name: str,
    actor: str = "",
    *,
    minor_units: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    step: Step = lambda: None,
) -> Reconciliation:
    """Compare the ledger with a statement of the provider, a CSV file that can be read twice.

    minor_units: its amounts are in paisa or cents, not in rupees or dollars. since, until: the span
    that it covers, in which what it does not show is missing there; else from its first payment to
    its last, less MARGIN at both ends. Changes nothing in the ledger. Raises UnknownProvider, and
    BadStatement before anything is written.
    """
    load(provider_name)
    statement = Statement(file, in_minor_units=minor_units)
    span = statement.checked()
    edge_since = timedelta(0) if since else MARGIN
    edge_until = timedelta(0) if until else MARGIN
    since, until = since or span.since, until or span.until
    run = Reconciliation.objects.create(
        provider=provider_name,
        source=Reconciliation.Source.STATEMENT,
        name=storable_text(name)[:200],
        since=since,
        until=until,
        actor=storable_text(actor),
    )
    with comparing(run, step) as comparison:
        comparison.compare(statement.payments())
        if since and until:
            for page in paid(comparison, since + edge_since, until - edge_until):
                comparison.missing_there(comparison.unseen(page))
    return run


class Statement:
    """The payments of a CSV file."""

    def __init__(self, file: IO[bytes], *, in_minor_units: bool) -> None:
        self._file = file
        self._in_minor_units = in_minor_units

    def checked(self) -> Span:
        """Read all of it. Raises BadStatement, which names the bad lines, MOST_TOLD at most."""
        span = Span()
        problems: list[str] = []
        for number, payment in self._payments():
            if isinstance(payment, ValueError):
                problems.append(f"line {number}: {payment}.")
                if len(problems) == MOST_TOLD:
                    problems.append("There may be more.")
                    break
            elif payment.created_at:
                span.take_in(payment.created_at)
        if problems:
            raise BadStatement("\n".join(problems))
        return span

    def payments(self) -> Iterator[Payment]:
        """Its payments, read once more. Raises BadStatement."""
        for number, payment in self._payments():
            if isinstance(payment, ValueError):
                raise BadStatement(f"line {number}: {payment}.")
            yield payment

    def _payments(self) -> Iterator[tuple[int, Payment | ValueError]]:
        """Each payment with the number of its line, or what is wrong with that line."""
        columns: Columns | None = None
        for number, line in self._lines():
            try:
                if columns is None:
                    columns = Columns(line, in_minor_units=self._in_minor_units)
                elif payment := columns.payment(line):
                    yield number, payment
            except ValueError as error:
                yield number, error
                if columns is None:
                    return
        if columns is None:
            yield 1, ValueError("the file is empty; its first line names the columns")

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """The fields of each line that is not blank, and its number."""
        self._file.seek(0)
        reader = csv.reader(self._text(), strict=True)
        try:
            for line in reader:
                if any(line):
                    yield reader.line_num, line
        except csv.Error as error:
            raise BadStatement(f"line {reader.line_num}: {error}.") from error

    def _text(self) -> Iterator[str]:
        coding = "utf-8-sig"
        for number, line in enumerate(
            iter(lambda: self._file.readline(LONGEST_LINE_BYTES), b""), start=1
        ):
            if len(line) == LONGEST_LINE_BYTES:
                raise BadStatement(f"line {number} is longer than {LONGEST_LINE_BYTES:,} bytes.")
            try:
                yield line.decode(coding)
            except UnicodeDecodeError:
                raise BadStatement(
                    f"line {number} is not UTF-8: save the file as CSV in UTF-8."
                ) from None
            coding = "utf-8"
