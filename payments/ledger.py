"""The verbs of the ledger, each one SQL function wrapped once (the intake's are in intake.py)."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction
from psycopg.errors import DataError, InvalidParameterValue

from payments.models import Transaction, WebhookDelivery
from queues.clean import storable_text
from queues.database import query
from queues.models import Operation

FULFIL = "payments.fulfil"
QUEUE = "payments"
# As expect_order has it, whose argument cannot hold every number that Python can.
MOST_MINOR_UNITS = 2**53


class OrderError(ValueError):
    """The order was refused and nothing was written. The message says what to mend."""


class ActRefused(ValueError):
    """Nothing was changed; the message says why."""


class Expected(NamedTuple):
    """`created`: False where the order was known. `difference`: what was recorded otherwise, with
    both values; None where all agrees."""

    id: UUID
    created: bool
    status: str
    difference: str | None


def expect_order(
    order_id: str,
    amount: int,
    currency: str = "INR",
    email: str | None = None,
    provider: str = "razorpay",
) -> Expected:
    """Announce an order before its money comes, so that what comes can be compared.

    `amount` in minor units (paisa, cents). Idempotent: an order that is known stays as it is, and
    the answer says what differs. Joins the caller's transaction. Raises OrderError.
    """
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise OrderError(f"amount is a whole number of minor units, not {amount!r}.")
    if not 0 <= amount <= MOST_MINOR_UNITS:
        raise OrderError("amount is a whole number of minor units, 0 to 2^53.")
    for name, value in {"order_id": order_id, "currency": currency, "provider": provider}.items():
        if not isinstance(value, str):
            raise OrderError(f"{name} is a text, not {value!r}.")
    if email is not None and not isinstance(email, str):
        raise OrderError(f"email is a text, not {email!r}.")
    if provider not in settings.PAYMENT_PROVIDERS:
        names = ", ".join(settings.PAYMENT_PROVIDERS)
        raise OrderError(f"There is no provider {provider!r}; PAYMENT_PROVIDERS has {names}.")
    if not all(text.isprintable() for text in (order_id, currency, provider, email or "")):
        raise OrderError("A text of the order holds a character that cannot be printed.")
    try:
        [row] = query(
            "SELECT id, created, status, difference FROM expect_order(%s, %s::bigint, %s, %s, %s)",
            [order_id, amount, currency, email, provider],
        )
    except DatabaseError as error:
        if isinstance(error.__cause__, InvalidParameterValue | DataError):
            raise OrderError(f"{error.__cause__.diag.message_primary}.") from error
        raise
    return Expected(*row)


def fulfil_again(transaction_id: UUID, *, actor: str, reason: str) -> UUID:
    """Release a held order, or start the fulfilment of a paid one anew; its new task.

    Written down as an operation. Raises ActRefused.
    """
    if not reason.strip():
        raise ActRefused("Say why: a reason is needed.")
    with transaction.atomic():
        [(outcome, note, task_id)] = query(
            "SELECT outcome, note, task_id FROM fulfil_again(%s)", [transaction_id]
        )
        if outcome == "skipped":
            raise ActRefused(f"Nothing was done: {note}.")
        order_id = Transaction.objects.values_list("order_id", flat=True).get(pk=transaction_id)
        act = write_down(f"fulfil order {order_id}", actor, reason)
        act.items.create(
            task_id=task_id, outcome="done", before="pending", after="pending", note="enqueued"
        )
    return UUID(str(task_id))


def handle_delivery(delivery_id: UUID, *, accept: bool, actor: str, reason: str) -> str:
    """Accept what a mismatch says after all, or set it aside; what was done.

    Written down as an operation. Raises ActRefused.
    """
    if not reason.strip():
        raise ActRefused("Say why: a reason is needed.")
    with transaction.atomic():
        [(outcome, note)] = query(
            "SELECT outcome, note FROM handle_delivery(%s, %s, %s, %s)",
            [delivery_id, accept, actor, storable_text(reason)[:2000]],
        )
        if outcome == "skipped":
            raise ActRefused(f"Nothing was done: {note}.")
        name = _name_of(WebhookDelivery.objects.get(pk=delivery_id))
        write_down(f"accept the {name}" if accept else f"set the {name} aside", actor, reason)
    return str(note)


def _name_of(delivery: WebhookDelivery) -> str:
    """As its page has it, and which payment it was."""
    name = f"{delivery.event_type or delivery.verdict} delivery"
    name += f" of {delivery.order_id or delivery.provider}"
    return f"{name}, payment {delivery.payment_id}" if delivery.payment_id else name


def write_down(verb: str, actor: str, reason: str) -> Operation:
    """Keep one act of a person; belongs in the transaction of the act."""
    reason = storable_text(reason)[:2000]
    return Operation.objects.create(
        verb=verb, actor=actor, reason=reason, requested=1, done=1, skipped=0
    )
