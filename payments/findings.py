"""Writing down what comparisons find: one open row for a payment, until a person has dealt with it or
the two sides agree."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from payments.models import Reconciliation, ReconciliationRow
from queues.clean import dumps
from queues.database import query
from queues.models import DatabaseClock

# Rows of one statement in one order, so that two comparisons at once do not wait for each other
# crosswise. A delivery to decide on belongs to the difference for which it was made.
UPSERT = """
INSERT INTO reconciliation_rows AS o
       (reconciliation_id, provider, finding, order_id, payment_id, difference, ours, theirs, transaction_id)
SELECT %s, %s, r.finding, r.order_id, r.payment_id, r.difference, r.ours, r.theirs, r.transaction_id
  FROM jsonb_to_recordset(%s::jsonb) r(
       finding text, order_id text, payment_id text, difference text, ours jsonb, theirs jsonb, transaction_id uuid)
 ORDER BY r.order_id, r.payment_id
    ON CONFLICT (provider, order_id, payment_id) WHERE handled_at IS NULL DO UPDATE
   SET reconciliation_id = EXCLUDED.reconciliation_id, finding = EXCLUDED.finding, difference = EXCLUDED.difference,
       ours = EXCLUDED.ours, theirs = EXCLUDED.theirs, transaction_id = EXCLUDED.transaction_id,
       delivery_id = CASE o.difference WHEN EXCLUDED.difference THEN o.delivery_id END, found_at = EXCLUDED.found_at
RETURNING 1
"""
FIELDS = ("finding", "order_id", "payment_id", "difference", "ours", "theirs")


def write(run: Reconciliation, rows: Sequence[ReconciliationRow]) -> None:
    """Write down what a run found, as it is now. What a person has set aside stays set aside while it
    is the same: its row goes over to this run, as an open one does."""
    aside = _set_aside(run, rows)
    found = [row for row in rows if _sameness(row) not in aside]
    if found:
        query(UPSERT, [run.pk, run.provider, dumps([_value(row) for row in found])])
    if aside:
        kept = ReconciliationRow.objects.filter(pk__in=aside.values())
        kept.update(reconciliation=run, found_at=DatabaseClock())


def _value(row: ReconciliationRow) -> dict[str, object]:
    id = row.transaction_id
    return {name: getattr(row, name) for name in FIELDS} | {"transaction_id": id and str(id)}


def _set_aside(
    run: Reconciliation, rows: Sequence[ReconciliationRow]
) -> dict[tuple[str, ...], UUID]:
    """The rows with which a person has set the same aside; those that the two sides closed, by coming
    to agree, are not among them."""
    handled = ReconciliationRow.objects.filter(
        provider=run.provider,
        handled_at__isnull=False,
        delivery_id__isnull=True,
        order_id__in={row.order_id for row in rows},
        payment_id__in={row.payment_id for row in rows},
    ).exclude(handled_by="")
    wanted = {_sameness(row) for row in rows}
    known = {_sameness(row): row.pk for row in handled.defer("ours", "theirs").order_by("id")}
    return {sameness: pk for sameness, pk in known.items() if sameness in wanted}


def _sameness(row: ReconciliationRow) -> tuple[str, ...]:
    return (str(row.finding), row.order_id, row.payment_id, row.difference)
