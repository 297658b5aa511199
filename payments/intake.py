"""The one door through which news of money enters: verify, then record it with its effects.

A delivery's row, the order's row and the fulfilment task are one statement (receive_delivery), and
2xx is answered only after its commit. Whatever fails is raised, so that the provider comes again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast
from uuid import UUID

import structlog
from django.conf import settings

from payments.models import Transaction, WebhookDelivery
from payments.providers.base import (
    BadSignature,
    Event,
    Provider,
    Rejected,
    Status,
    load,
    webhook_secrets,
)
from queues.clean import dumps, storable_text
from queues.database import query

log = structlog.get_logger(__name__)

# What an outsider, or a provider that repeats itself, can make us store. A signed delivery that we
# cannot read may be money: it has room of its own, and its body is kept.
UNSIGNED_PER_HOUR = 150
UNSIGNED_BODY_BYTES = 2 * 1024
UNREADABLE_PER_HOUR = 200
REPEATS_KEPT = 100
HEADER_CHARACTERS = 200
KEPT_HEADERS = ("content-type", "user-agent", "x-forwarded-for")

Verdict = WebhookDelivery.Verdict
Source = WebhookDelivery.Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one delivery. delivery_id is None where its row was one too many to keep."""

    verdict: Verdict
    http_status: int = 200
    reason: str = ""
    delivery_id: UUID | None = None
    transaction_id: UUID | None = None
    task_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What came, and when we began with it (time.perf_counter)."""

    provider: str
    body: bytes
    headers: dict[str, str]
    source: Source = Source.WEBHOOK
    began: float = 0.0

    @property
    def took(self) -> float:
        return time.perf_counter() - self.began if self.began else 0.0


def receive(provider_name: str, body: bytes, headers: Mapping[str, str]) -> Receipt:
    """Record one webhook with all its effects, and say what the provider should be answered.

    Raises UnknownProvider, NotConfigured (no secret is set), and whatever the database or the
    queue raises; then nothing of the delivery was written.
    """
    began = time.perf_counter()
    provider = load(provider_name)
    secrets = webhook_secrets(provider_name)
    post = Post(provider=provider_name, body=body, headers=_kept(provider, headers), began=began)
    try:
        event = provider.verify(body, headers, secrets)
    except Rejected as refusal:
        return reject(post, refusal)
    return record(post, event)


def receive_callback(
    provider_name: str, body: bytes, fields: Mapping[str, str], headers: Mapping[str, str]
) -> Receipt:
    """Record what a customer's browser brings back from the checkout; its money counts once with
    that of the webhook. Amount, currency and address are those that we announced.

    Raises as receive() does. An order that nobody announced is rejected: only its webhook can tell
    what was paid.
    """
    began = time.perf_counter()
    provider = load(provider_name)
    kept = _kept(provider, headers)
    post = Post(
        provider=provider_name, body=body, headers=kept, source=Source.CALLBACK, began=began
    )
    try:
        proven = provider.verify_callback(fields)
    except Rejected as refusal:
        return reject(post, refusal)
    # What it proves, without the signature that proves it.
    told = {"order_id": proven.order_id, "payment_id": proven.payment_id}
    post = replace(post, body=dumps(told).encode())
    row = Transaction.objects.filter(order_id=proven.order_id).first()
    if row is None:
        return reject(post, UnknownOrder(f"Nobody announced the order {proven.order_id}."))
    if row.provider != provider_name:
        whose = f"The order {row.order_id} is one of {row.provider}, not of {provider_name}."
        return reject(post, UnknownOrder(whose))
    event = Event(
        event_id=f"callback:{proven.payment_id}",
        event_type="checkout.callback",
        order_id=proven.order_id,
        payment_id=proven.payment_id,
        amount=row.amount,
        currency=row.currency,
        status=cast(Status, settings.PAYMENTS_CALLBACK_STATUS),
    )
    return record(post, event)


class UnknownOrder(Rejected):
    http_status = 404


def record(post: Post, event: Event) -> Receipt:
    """Record one genuine delivery with all its effects."""
    [(verdict, reason, delivery_id, transaction_id, task_id)] = query(
        "SELECT verdict, reason, delivery_id, transaction_id, task_id FROM receive_delivery("
        "%s, %s, %s, %s, %s::jsonb, %s, %s::jsonb, %s, %s, %s)",
        [
            post.provider,
            post.source.value,
            event.event_id,
            event.event_type,
            dumps(event.claim()),
            post.body,
            dumps(post.headers),
            settings.PAYMENTS_UNEXPECTED == "hold",
            post.took,
            REPEATS_KEPT,
        ],
    )
    receipt = Receipt(
        verdict=Verdict(verdict),
        reason=reason,
        delivery_id=delivery_id,
        transaction_id=transaction_id,
        task_id=task_id,
    )
    return _logged(post, event, receipt)


def reject(post: Post, refusal: Rejected) -> Receipt:
    """Keep a delivery that is not as it should be, as far as there is room.

    A signed webhook is answered 200 once it is kept: it waits for a person, and its provider would
    send the same again, and in the end nothing more. Without room it is to come again.
    """
    # Anybody can send a callback.
    signed = post.source is Source.WEBHOOK and not isinstance(refusal, BadSignature)
    [(delivery_id,)] = query(
        "SELECT reject_delivery(%s, %s, %s, %s::jsonb, %s, %s, %s, %s)",
        [
            post.provider,
            post.source.value,
            post.body if signed else post.body[:UNSIGNED_BODY_BYTES],
            dumps(post.headers),
            refusal.reason,
            signed,
            UNREADABLE_PER_HOUR if signed else UNSIGNED_PER_HOUR,
            post.took,
        ],
    )
    answer = 200 if delivery_id else 503
    receipt = Receipt(
        verdict=Verdict.REJECTED,
        http_status=answer if signed else refusal.http_status,
        reason=refusal.reason,
        delivery_id=delivery_id,
    )
    return _logged(post, None, receipt)


def _logged(post: Post, event: Event | None, receipt: Receipt) -> Receipt:
    log.info(
        "webhook",
        provider=post.provider,
        source=post.source.value,
        verdict=receipt.verdict.value,
        # A mismatch quotes amounts and addresses; its delivery has them.
        reason=receipt.reason if receipt.verdict is Verdict.REJECTED else "",
        event_type=event.event_type if event else "",
        order_id=event.order_id if event else None,
        delivery_id=receipt.delivery_id and str(receipt.delivery_id),
    )
    return receipt


def _kept(provider: Provider, headers: Mapping[str, str]) -> dict[str, str]:
    """The few headers worth keeping; a signature or a cookie is not among them."""
    wanted = {*KEPT_HEADERS, *provider.kept_headers}
    return {
        name.lower(): storable_text(value[:HEADER_CHARACTERS])
        for name, value in headers.items()
        if name.lower() in wanted
    }
