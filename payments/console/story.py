"""One payment's story: what came, what was made of it, and the tasks that it started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, TextField, Value
from django.db.models.functions import Coalesce
from django.urls import reverse
from django.utils import timezone
from django.utils.text import Truncator

from payments.console.attention import LATE
from payments.console.meaning import meaning_of
from payments.guards import MONEY
from payments.models import Fulfilment, OrderPayment, Transaction, WebhookDelivery
from payments.money import format_amount
from queues.console.formats import duration
from queues.lookup import UNREAD, find_tasks
from queues.models import AnyTask, OperationItem, Task, TaskFields

DELIVERIES_SHOWN = 100
TASKS_SHOWN = 50
PAYMENTS_SHOWN = 50
NO_TENANT = Value("", TextField())
Status = Transaction.Status


@dataclass(frozen=True)
class Event:
    """A point of the timeline. `state` picks its colour and icon; the title leads to `url`."""

    at: datetime
    state: str
    title: str
    detail: str = ""
    url: str = ""


def of(row: Transaction) -> dict[str, Any]:
    """The context of a payment's page."""
    about = Q(transaction_id=row.id) | Q(order_id=row.order_id)
    found = WebhookDelivery.objects.filter(about).defer("body", "headers").order_by("-id")
    deliveries = list(found[: DELIVERIES_SHOWN + 1])
    fulfilment = Fulfilment.objects.filter(order_id=row.order_id).first()
    tasks = trail(row, deliveries, fulfilment)
    return {
        "payment": row,
        "amount": format_amount(row.amount, row.currency),
        "refunded": format_amount(row.refunded, row.currency) if row.refunded else "",
        "tried": tried(row),
        "sentence": sentence(row, tasks),
        "deliveries": deliveries[:DELIVERIES_SHOWN],
        "more_deliveries": len(deliveries) > DELIVERIES_SHOWN,
        "contradictions": [
            (delivery, meaning_of(row, delivery))
            for delivery in deliveries
            if delivery.verdict == "mismatch" and not delivery.handled_at
        ],
        "fulfilment": fulfilment,
        "tasks": tasks,
        "failing": is_due(row)
        and not row.held_at
        and is_failing(next((task for task in tasks if task.id == row.task_id), None)),
        "events": timeline(row, deliveries[:DELIVERIES_SHOWN], fulfilment, tasks),
        "on_its_way": is_due(row) and row.held_at is None,
    }


def tried(row: Transaction) -> list[OrderPayment]:
    """The payments that were tried for the order, where there is more to tell than the one."""
    found = list(row.payments.order_by("created_at", "payment_id")[:PAYMENTS_SHOWN])
    return found if len(found) > 1 else []


def is_due(row: Transaction) -> bool:
    """Whether money came for which nothing was given so far."""
    paid = row.status in (Status.PAID, Status.PARTIALLY_REFUNDED)
    return paid and row.fulfilled_at is None


def is_late(row: Transaction) -> bool:
    return is_due(row) and row.paid_at is not None and row.paid_at < timezone.now() - LATE


def trail(
    row: Transaction, deliveries: Sequence[WebhookDelivery], fulfilment: Fulfilment | None
) -> list[TaskFields]:
    """The tasks that the payment started and those that they started, oldest first: those that carry
    its correlation id, those that the ledger names, and the live ones of its own key."""
    started = [delivery for delivery in deliveries if delivery.task_id]
    named = {row.task_id, *(delivery.task_id for delivery in started)}
    if fulfilment:
        named |= {fulfilment.task_id, _uuid(fulfilment.detail.get("receipt_task_id"))}
    known = find_tasks([id for id in named if id])
    keys = {str(row.id), *(str(delivery.id) for delivery in started)}
    keys |= {task.correlation_id or str(id) for id, task in known.items()}
    carried = AnyTask.objects.defer(*UNREAD).filter(correlation_id__in=keys).order_by("id")
    mine: list[TaskFields] = [*carried[:TASKS_SHOWN], *_live(row), *known.values()]
    return sorted({task.id: task for task in mine}.values(), key=lambda task: task.id)


def _live(row: Transaction) -> list[Task]:
    """Money tasks of this transaction that nobody linked to it but by their dedupe key."""
    rows = Task.objects.defer(*UNREAD).alias(tenant=Coalesce("tenant_id", NO_TENANT))
    live = rows.filter(tenant="", type__in=MONEY, dedupe_key=str(row.id), status__in=Task.LIVE)
    return list(live)


def _uuid(value: Any) -> UUID | None:
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        return None


def sentence(row: Transaction, tasks: Sequence[TaskFields]) -> str:
    """Where the money is, and what was given for it."""
    amount = format_amount(row.amount, row.currency)
    match row.status:
        case Status.CREATED:
            return f"{amount} announced; no money has come so far."
        case Status.AUTHORIZED:
            return f"{amount} authorized and not captured: no money has come so far."
        case Status.FAILED:
            return "The payment failed. Another attempt of the customer may still pay the order."
        case Status.REFUNDED:
            given = "It had been fulfilled" if row.fulfilled_at else "Nothing was given for it"
            return f"{amount} came and all of it went back. {given}."
        case Status.PARTIALLY_REFUNDED:
            back = format_amount(row.refunded, row.currency)
            return f"{amount} came, {back} of it went back. {_given(row, tasks)}"
    return f"{amount} came. {_given(row, tasks)}"


def _given(row: Transaction, tasks: Sequence[TaskFields]) -> str:
    if row.fulfilled_at:
        if row.paid_at is None or row.fulfilled_at < row.paid_at:
            return "The order is fulfilled."
        took = duration((row.fulfilled_at - row.paid_at).total_seconds())
        return f"The order was fulfilled {took or 'at once'} later."
    if row.held_at:
        return "Nobody announced the order: it is held until a person fulfils it."
    task = next((task for task in tasks if task.id == row.task_id), None)
    if task is None:
        return "No task fulfils the order: fulfil it anew."
    if is_failing(task):
        times = f"{task.attempts} time{'' if task.attempts == 1 else 's'}"
        return f"The task that fulfils the order failed {times} so far: {_first_words(task.error)}"
    if task.status in Task.LIVE:
        return f"The task that fulfils the order is {task.status}."
    return f"The task that should fulfil the order is {task.status}: fulfil it anew."


def is_failing(task: TaskFields | None) -> bool:
    """Whether attempts of a task failed that is to be tried again."""
    return bool(task and task.status in Task.LIVE and task.attempts and task.error)


def _first_words(error: str | None) -> str:
    return Truncator(" ".join((error or "").split())).chars(120)


def timeline(
    row: Transaction,
    deliveries: Sequence[WebhookDelivery],
    fulfilment: Fulfilment | None,
    tasks: Sequence[TaskFields],
) -> list[Event]:
    """What happened, newest first."""
    events = [*_of_row(row, fulfilment), *_of_tasks(tasks)]
    for delivery in deliveries:
        events += _of_delivery(delivery)
    return sorted(events, key=lambda event: event.at, reverse=True)


def _of_row(row: Transaction, fulfilment: Fulfilment | None) -> Iterator[Event]:
    amount = format_amount(row.amount, row.currency)
    if row.expected_at:
        yield Event(row.expected_at, "created", "Announced")
    if row.paid_at:
        yield Event(row.paid_at, "paid", "Paid", amount)
    if row.held_at:
        yield Event(row.held_at, "held", "Held", "nobody had announced the order")
    if fulfilment:
        told = ", ".join(f"{name}: {value}" for name, value in fulfilment.detail.items())
        url = reverse("queue:task", args=[fulfilment.task_id]) if fulfilment.task_id else ""
        yield Event(fulfilment.created_at, "fulfilled", "Fulfilled, effect recorded", told, url)
    elif row.fulfilled_at:
        yield Event(row.fulfilled_at, "fulfilled", "Fulfilled")


def _of_delivery(delivery: WebhookDelivery) -> Iterator[Event]:
    url = reverse("payments:delivery", args=[delivery.pk])
    what = delivery.event_type or delivery.source
    title = f"{what}: {delivery.verdict}"
    yield Event(delivery.received_at, delivery.verdict, title, _told(delivery), url)
    if delivery.handled_at:
        by = f"Decided by {delivery.handled_by}"
        yield Event(delivery.handled_at, "accepted", by, delivery.handling, url)


def _told(delivery: WebhookDelivery) -> str:
    """The delivery's reason, and what it says of money that went back."""
    claim = delivery.claim or {}
    back, currency = claim.get("refunded"), claim.get("currency")
    refund = f"{format_amount(back, currency)} went back" if back and currency else ""
    return " ".join(filter(None, (refund and f"{refund}.", delivery.reason)))


def _of_tasks(tasks: Sequence[TaskFields]) -> Iterator[Event]:
    for task in tasks:
        url = reverse("queue:task", args=[task.id])
        yield Event(task.created_at, "pending", f"{task.type} enqueued", "", url)
        if task.completed_at:
            title = f"{task.type} {task.status}"
            yield Event(task.completed_at, task.status, title, task.error or "", url)
    acts = OperationItem.objects.filter(task_id__in=[t.id for t in tasks], outcome="done")
    for item in acts.select_related("operation").order_by("-id")[:50]:
        operation = item.operation
        title = f"{operation.verb.capitalize()} by {operation.actor}"
        url = reverse("queue:operation", args=[operation.pk])
        yield Event(operation.created_at, item.after or "pending", title, operation.reason, url)
