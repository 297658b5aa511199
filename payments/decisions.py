"""What a person decides about a difference that a reconciliation found."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from payments import intake
from payments.comparison import Ledger
from payments.intake import Post, Receipt, Source, Verdict
from payments.judgement import payment_of, words
from payments.ledger import ActRefused, write_down
from payments.models import ReconciliationRow, Transaction
from payments.providers.base import Event, Payment
from queues.clean import dumps
from queues.models import DatabaseClock

DECIDED = ("delivery_id", "handled_at", "handled_by")


class KeptAsMismatch(ActRefused):
    """The ledger is unchanged, and what the provider says waits as a mismatch: delivery_id."""

    def __init__(self, message: str, delivery_id: UUID | None) -> None:
        super().__init__(message)
        self.delivery_id = delivery_id


def apply_row(row_id: UUID, actor: str, reason: str) -> Receipt:
    """Record what the provider says of a payment, as if its webhook had come now.

    It goes through the one door, so an order becomes paid and is fulfilled once, also when the
    webhook comes after all. Written down as an operation. Raises ActRefused where the ledger is
    further on, and KeptAsMismatch where it contradicts, which is written down, too.
    """
    _require(reason)
    with transaction.atomic():
        row = _open_row(row_id)
        if row.theirs is None:
            raise ActRefused("Nothing was done: the provider says nothing that could be recorded.")
        provider, theirs = row.provider, payment_of(row.theirs)
        receipt = _record(provider, theirs)
        row.delivery_id = receipt.delivery_id
        if receipt.verdict is not Verdict.MISMATCH:
            if not _agrees(provider, theirs):
                raise ActRefused(
                    f"Nothing was done. {receipt.reason} See the deliveries of the order."
                )
            _handle(row, actor)
            write_down(f"record what the provider says of {_name_of(row)}", actor, reason)
        else:
            told = f"record what the provider says of {_name_of(row)}: kept as a mismatch"
            write_down(told, actor, reason)
        row.save(update_fields=DECIDED)
    if receipt.verdict is Verdict.MISMATCH:
        raise KeptAsMismatch(
            f"The ledger is unchanged: {receipt.reason}. What the provider says is kept as a"
            f" mismatch, delivery {receipt.delivery_id}: accept it there or set it aside.",
            receipt.delivery_id,
        )
    return receipt


def what_became(receipt: Receipt) -> str:
    """What recording did to the order, for who asked for it."""
    told = f"Recorded: {receipt.verdict.value}."
    if receipt.transaction_id is None:
        return told
    row = Transaction.objects.get(pk=receipt.transaction_id)
    if row.held_at:
        return (
            f"{told} Order {row.order_id} is held: nobody announced it, and a person releases it."
        )
    if receipt.task_id:
        return f"{told} The fulfilment of order {row.order_id} is enqueued."
    return f"{told} Order {row.order_id} is {words(row.status)}."


def set_aside_row(row_id: UUID, actor: str, reason: str) -> None:
    """Decide that a difference needs nothing. While the same is found again, it stays set aside.

    Written down as an operation. Raises ActRefused.
    """
    _require(reason)
    with transaction.atomic():
        row = _open_row(row_id)
        row.delivery_id = None
        _handle(row, actor)
        row.save(update_fields=DECIDED)
        write_down(f"set the difference of {_name_of(row)} aside", actor, reason)


def _require(reason: str) -> None:
    if not reason.strip():
        raise ActRefused("Say why: a reason is needed.")


def _open_row(row_id: UUID) -> ReconciliationRow:
    """The row, locked, that nobody has dealt with. Raises ActRefused."""
    row = ReconciliationRow.objects.select_for_update().filter(pk=row_id).first()
    if row is None:
        raise ActRefused("Nothing was done: there is no such row.")
    if row.handled_at is not None:
        why = f"{row.handled_by} dealt with it already" if row.handled_by else "the two sides agree"
        raise ActRefused(f"Nothing was done: {why}.")
    return row


def _name_of(row: ReconciliationRow) -> str:
    names = [("order", row.order_id), ("payment", row.payment_id)]
    return ", ".join(f"{noun} {name}" for noun, name in names if name)


def _handle(row: ReconciliationRow, actor: str) -> None:
    row.handled_at = DatabaseClock()
    row.handled_by = actor


def _record(provider: str, theirs: Payment) -> Receipt:
    # What was given back is part of the id: each refund of a payment is news of its own.
    refunded = theirs.refunded or 0
    event = Event(
        event_id=f"reconciliation:{theirs.payment_id}:{theirs.status}:{refunded}",
        event_type=f"reconciliation.{theirs.status}",
        order_id=theirs.order_id,
        payment_id=theirs.payment_id,
        email=theirs.email,
        amount=theirs.amount,
        currency=theirs.currency,
        status=theirs.status,
        refunded=refunded,
    )
    post = Post(
        provider=provider,
        body=dumps(theirs.raw).encode(),
        headers={},
        source=Source.RECONCILIATION,
    )
    return intake.record(post, event)


def _agrees(provider: str, theirs: Payment) -> bool:
    _, judgement = Ledger(provider, [theirs]).judge(theirs)
    return judgement.outcome in ("agreed", "ignored")
