"""The tasks that a payment starts: fulfil the order, then send its receipt. Beside them the one that
compares the ledger with a provider's books."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from datetime import timedelta
from email.utils import parseaddr
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import QuerySet
from django.template.loader import render_to_string
from django.utils.module_loading import import_string

from payments import reconcile_task
from payments.ledger import FULFIL, QUEUE
from payments.models import Fulfilment, Transaction
from payments.money import format_amount
from queues.enqueue import enqueue
from queues.models import DatabaseClock
from queues.registry import handles
from queues.retry import Fail

if TYPE_CHECKING:
    from queues.worker.context import TaskContext

SEND_RECEIPT = "payments.send_receipt"
Effect = Callable[[Transaction, "TaskContext"], dict[str, Any]]
Status = Transaction.Status


class MailRefused(Exception):
    """The mail server did not take a mail, for now. Its own words may quote the address."""


# A provider that fails is asked again for about an hour.
handles(
    reconcile_task.RECONCILE, queue=QUEUE, max_attempts=6, timeout=timedelta(hours=1), backoff=60
)(reconcile_task.run)


@handles(FULFIL, queue=QUEUE, max_attempts=10, timeout=60)
def fulfil(ctx: TaskContext) -> dict[str, Any]:
    """Fulfil a paid order, once, however often it runs: do its effect, write that down, and mark it.
    The payload's transaction_id says which one; its name is the one that it has by now.

    The effect is PAYMENTS_EFFECT's, a function of the transaction's row and the task's context that
    gives what to write down. It, the record, the mark and this task's completion commit as one, so
    the function must write to this database only, and enqueue tasks for all else. Fails for good
    when the order is not there or is not paid (it was refunded since). One that is held is left alone.
    """
    effect: Effect = import_string(settings.PAYMENTS_EFFECT)
    with transaction.atomic():
        row = _row(ctx, Transaction.objects.select_for_update(no_key=True))
        if row.fulfilled_at is not None:
            result = {"fulfilled": False, "reason": "The order was fulfilled before."}
        elif row.held_at is not None:
            result = {"fulfilled": False, "reason": "The order is held: a person must release it."}
        elif row.status not in (Status.PAID, Status.PARTIALLY_REFUNDED):
            raise Fail(f"Order {row.order_id} is {row.status}, not paid: nothing to fulfil.")
        else:
            detail = effect(row, ctx)
            Fulfilment.objects.create(
                order_id=row.order_id, transaction=row, task_id=ctx.id, detail=detail
            )
            Transaction.objects.filter(id=row.id).update(
                fulfilled_at=DatabaseClock(), updated_at=DatabaseClock()
            )
            result = {"fulfilled": True, **detail}
        ctx.complete(result)
    return result


def enqueue_receipt(row: Transaction, ctx: TaskContext) -> dict[str, Any]:
    """The effect that comes with the product: the order's receipt is mailed by a task."""
    receipt = enqueue(
        SEND_RECEIPT,
        {"transaction_id": str(row.id)},
        dedupe_key=str(row.id),
        correlation_id=ctx.correlation_id,
        tenant_id=ctx.tenant_id,
    )
    return {"receipt_task_id": str(receipt.id)}


@handles(SEND_RECEIPT, queue=QUEUE, max_attempts=8, timeout=60, backoff=30)
def send_receipt(ctx: TaskContext) -> dict[str, Any]:
    """Mail the receipt of a paid order. An order without an address gets none: no failure.

    The mail can go out twice when a worker dies between sending and reporting; both then carry the
    same Message-ID, made of the task's id. Fails for good when the address can never be reached.
    """
    row = _row(ctx, Transaction.objects.all())
    if row.status not in Transaction.SETTLED:
        raise Fail(f"Order {row.order_id} is {row.status}: there is no payment to receipt.")
    if not row.email:
        return {"sent": False, "reason": "The transaction has no e-mail address."}
    try:
        validate_email(row.email)
    except ValidationError:
        raise Fail(f"The e-mail address of order {row.order_id} is not a valid one.") from None
    message = _receipt(row, row.email, ctx.id)
    ctx.check()
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        if all(code >= 500 for code in codes):
            raise Fail(f"The mail server refuses the address of order {row.order_id}.") from None
        raise MailRefused(f"The mail server refused the recipient, code {codes}.") from None
    except smtplib.SMTPResponseException as error:
        raise MailRefused(f"{type(error).__name__}, code {error.smtp_code}.") from None
    return {"sent": True, "message_id": message.extra_headers["Message-ID"]}


def _row(ctx: TaskContext, rows: QuerySet[Transaction]) -> Transaction:
    given = ctx.payload.get("transaction_id") if isinstance(ctx.payload, dict) else None
    try:
        return rows.get(id=UUID(str(given)))
    except ValueError:
        raise Fail(f"The payload's transaction_id is no transaction's id: {given!r}.") from None
    except Transaction.DoesNotExist:
        raise Fail(f"There is no transaction {given}.") from None


def _receipt(row: Transaction, address: str, task_id: UUID) -> EmailMessage:
    amount = format_amount(row.amount, row.currency)
    # A header cannot hold a line break, and an order written by other hands may.
    order_id = " ".join(row.order_id.split())
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    return EmailMessage(
        subject=f"Receipt for order {order_id}: {amount}",
        body=render_to_string(
            "payments/receipt.txt", {"transaction": row, "order_id": order_id, "amount": amount}
        ),
        to=[address],
        headers={"Message-ID": f"<{task_id}@{domain}>", "Auto-Submitted": "auto-generated"},
    )
