"""The one door through which a provider's webhook enters: verify, then record it with its effects.

A delivery's row, the order's row and the fulfilment task commit as one or not at all, and 2xx is
answered only after that commit. Whatever fails is raised, so that the provider delivers again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import connection, transaction

from payments import ledger
from payments.models import Transaction, WebhookDelivery
from payments.providers.base import BadSignature, Event, Provider, Rejected, load, webhook_secrets
from queues.clean import dumps, storable_text

log = structlog.get_logger(__name__)

# What an outsider, or a provider that repeats itself, can make us store.
REJECTED_PER_HOUR = 200
# The rest of them is kept for signed deliveries that we cannot read: those may be money.
UNSIGNED_PER_HOUR = 150
REPEATS_PER_ORDER = 100
REJECTED_BODY_BYTES = 64 * 1024
HEADER_CHARACTERS = 200
KEPT_HEADERS = ("content-type", "user-agent", "x-forwarded-for")
# Providers hang up after some seconds; by then they should know that they must come again.
LOCK_TIMEOUT = "4s"

Verdict = WebhookDelivery.Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one delivery. delivery_id is None where its row was one too many to keep."""

    verdict: Verdict
    http_status: int = 200
    reason: str = ""
    delivery_id: UUID | None = None
    transaction_id: UUID | None = None
    task_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class _Post:
    provider: str
    body: bytes
    headers: dict[str, str]


def receive(provider_name: str, body: bytes, headers: Mapping[str, str]) -> Receipt:
    """Record one delivery with all its effects, and say what the provider should be answered.

    Raises UnknownProvider, NotConfigured (no secret is set), and whatever the database or the
    queue raises; then nothing of the delivery was written.
    """
    provider = load(provider_name)
    secrets = webhook_secrets(provider_name)
    post = _Post(provider_name, body, _kept(provider, headers))
    try:
        event = provider.verify(body, headers, secrets)
    except Rejected as refusal:
        return _logged(post, None, _reject(post, refusal))
    with transaction.atomic():
        _limit_waiting()
        receipt = _record(post, event)
    return _logged(post, event, receipt)


def _logged(post: _Post, event: Event | None, receipt: Receipt) -> Receipt:
    log.info(
        "webhook",
        provider=post.provider,
        verdict=receipt.verdict.value,
        reason=receipt.reason,
        event_type=event.event_type if event else "",
        order_id=event.order_id if event else None,
        delivery_id=receipt.delivery_id and str(receipt.delivery_id),
    )
    return receipt


def _record(post: _Post, event: Event) -> Receipt:
    delivery_id = _insert(post, event, Verdict.ACCEPTED)
    if delivery_id is None:
        return _repeat(post, event)
    if event.status is None:
        known = Transaction.objects.filter(order_id=event.order_id or "").first()
        outcome = ledger.Outcome(
            verdict=Verdict.ACCEPTED, reason=event.note, transaction_id=known.id if known else None
        )
    else:
        outcome = ledger.apply(post.provider, event, delivery_id)
    if not outcome.changed and _same_body_exists(post, event, delivery_id):
        # The event's id is not signed: under a new one this is still the delivery we have.
        WebhookDelivery.objects.filter(id=delivery_id).delete()
        reason = "The same body came before under another event id."
        return _keep(post, event, Verdict.DUPLICATE, reason, outcome.transaction_id)
    WebhookDelivery.objects.filter(id=delivery_id).update(
        verdict=outcome.verdict,
        reason=outcome.reason,
        transaction_id=outcome.transaction_id,
        task_id=outcome.task_id,
    )
    return Receipt(
        verdict=outcome.verdict,
        reason=outcome.reason,
        delivery_id=delivery_id,
        transaction_id=outcome.transaction_id,
        task_id=outcome.task_id,
    )


def _repeat(post: _Post, event: Event) -> Receipt:
    """An event id that we have: a replay, or one that contradicts what that event said first."""
    first = (
        WebhookDelivery.objects.select_for_update(no_key=True)
        .exclude(verdict__in=[Verdict.DUPLICATE, Verdict.REJECTED])
        .get(provider=post.provider, event_id=event.event_id)
    )
    reason = "" if bytes(first.body) == post.body else _contradiction(first, post, event)
    verdict = Verdict.MISMATCH if reason else Verdict.DUPLICATE
    reason = reason or "This event came before."
    return _keep(post, event, verdict, reason, first.transaction_id)


def _contradiction(first: WebhookDelivery, post: _Post, event: Event) -> str:
    """What this delivery says otherwise than the first one of its event id, or empty."""
    before, now = (first.event_type, first.order_id), (event.event_type, event.order_id)
    if before != now:
        return (
            f"The event id {event.event_id} was used before: recorded {before[0]} of order "
            f"{before[1]}, delivered {now[0]} of order {now[1]}."
        )
    row = Transaction.objects.filter(order_id=event.order_id or "").first()
    if row is None or event.amount is None:
        return ""
    return ledger.differences(row, post.provider, event)


def _keep(
    post: _Post, event: Event, verdict: Verdict, reason: str, transaction_id: UUID | None
) -> Receipt:
    """Keep a delivery that changes nothing, unless its order has enough of them."""
    alike = WebhookDelivery.objects.filter(order_id=event.order_id, verdict=verdict)
    if event.order_id is None:
        # One that contradicts its event is kept without the event's id, see _insert.
        alike = alike.filter(event_id=event.event_id if verdict is Verdict.DUPLICATE else None)
    delivery_id = None
    if alike[:REPEATS_PER_ORDER].count() < REPEATS_PER_ORDER:
        delivery_id = _insert(post, event, verdict, reason, transaction_id)
    return Receipt(
        verdict=verdict, reason=reason, delivery_id=delivery_id, transaction_id=transaction_id
    )


def _same_body_exists(post: _Post, event: Event, delivery_id: UUID) -> bool:
    others = WebhookDelivery.objects.filter(order_id=event.order_id, body=post.body)
    others = others.filter(provider=post.provider).exclude(verdict=Verdict.REJECTED)
    return event.order_id is not None and others.exclude(id=delivery_id).exists()


def _reject(post: _Post, refusal: Rejected) -> Receipt:
    signed = not isinstance(refusal, BadSignature)
    room = REJECTED_PER_HOUR if signed else min(UNSIGNED_PER_HOUR, REJECTED_PER_HOUR)
    delivery_id = None
    with transaction.atomic(), connection.cursor() as cursor:
        _limit_waiting()
        # One at a time: else a burst would count together and then be stored together.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('payments.rejected'))")
        cursor.execute(
            "SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE verdict = 'rejected'"
            " AND received_at > clock_timestamp() - interval '1 hour' LIMIT %s) recent",
            [room],
        )
        if cursor.fetchone()[0] < room:
            delivery_id = _insert(post, None, Verdict.REJECTED, refusal.reason)
    return Receipt(
        verdict=Verdict.REJECTED,
        http_status=refusal.http_status,
        reason=refusal.reason,
        delivery_id=delivery_id,
    )


def _insert(
    post: _Post,
    event: Event | None,
    verdict: Verdict,
    reason: str = "",
    transaction_id: UUID | None = None,
) -> UUID | None:
    """The new row's id, or None: this event id has its row. Waits for one being written."""
    # One that contradicts the event it claims to be is kept, but not under that event's id.
    nameless = event is None or verdict is Verdict.MISMATCH
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO webhook_deliveries (provider, event_id, event_type, order_id, verdict,"
            " reason, body, headers, transaction_id)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s)"
            " ON CONFLICT DO NOTHING RETURNING id",
            [
                post.provider,
                None if nameless or event is None else event.event_id,
                event.event_type if event else "",
                event.order_id if event else None,
                verdict,
                reason,
                post.body if event else post.body[:REJECTED_BODY_BYTES],
                dumps(post.headers),
                transaction_id,
            ],
        )
        found = cursor.fetchone()
    return found[0] if found else None


def _kept(provider: Provider, headers: Mapping[str, str]) -> dict[str, str]:
    """The few headers worth keeping; a signature or a cookie is not among them."""
    wanted = {*KEPT_HEADERS, *provider.kept_headers}
    return {
        name.lower(): storable_text(value[:HEADER_CHARACTERS])
        for name, value in headers.items()
        if name.lower() in wanted
    }


def _limit_waiting() -> None:
    """Fail rather than hang on a lock that someone holds for long."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
