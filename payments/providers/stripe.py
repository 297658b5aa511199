"""Stripe: webhooks signed with HMAC-SHA256 of a time and the raw body. What they say:
stripe_events.py. Its books: stripe_books.py."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from django.conf import settings

from payments.providers import parse
from payments.providers.base import (
    BadSignature,
    Booked,
    Event,
    NotConfigured,
    Provider,
    header,
)
from payments.providers.stripe_events import event_of

if TYPE_CHECKING:
    from payments.providers.stripe_books import StripeBooks

_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_SIGNATURES = 10


class Stripe(Provider):
    """Stripe, as its documentation has it. STRIPE_TOLERANCE_SECONDS: how old a signature may be."""

    name = "stripe"

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Event:
        _check_signature(body, header(headers, "Stripe-Signature"), secrets)
        return event_of(parse.json_object(body))

    def has_key(self) -> bool:
        return bool(settings.STRIPE_API_KEY)

    def payments(self, since: datetime, until: datetime) -> Iterator[Booked]:
        return self._books.payments(since, until)

    def payment(self, payment_id: str) -> Booked | None:
        return self._books.payment(payment_id)

    def payments_of(self, order_id: str) -> Sequence[Booked]:
        return self._books.payments_of(order_id)

    @cached_property
    def _books(self) -> StripeBooks:
        if not self.has_key():
            raise NotConfigured("STRIPE_API_KEY is empty: set it to ask Stripe.")
        # Here: only reconciliation needs Stripe's client, which takes long to import.
        from payments.providers.stripe_books import StripeBooks

        return StripeBooks(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


def _check_signature(body: bytes, given: str, secrets: Sequence[str]) -> None:
    """Any of the v1 signatures may fit any secret: both are several while a secret is rotated."""
    if not given:
        raise BadSignature("The header Stripe-Signature is missing.")
    pairs = [part.strip().partition("=") for part in given.split(",")[: _MOST_SIGNATURES + 1]]
    times = [value for key, _, value in pairs if key == "t"]
    signatures = [value for key, _, value in pairs if key == "v1" and _HEX_SHA256.fullmatch(value)]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal() and len(times[0]) < 20):
        raise BadSignature("The header Stripe-Signature holds no time t.")
    if not signatures:
        raise BadSignature("The header Stripe-Signature holds no signature v1 of 64 digits.")
    signed = times[0].encode() + b"." + body
    fits = [
        hmac.compare_digest(
            hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode(),
            signature.encode(),
        )
        for secret in secrets
        for signature in signatures
    ]
    if not any(fits):
        raise BadSignature("The signature was made with no secret of ours, or for another body.")
    if int(times[0]) < time.time() - settings.STRIPE_TOLERANCE_SECONDS:
        raise BadSignature(
            f"The signature is older than {settings.STRIPE_TOLERANCE_SECONDS} seconds: a replay, or"
            " this machine's clock is wrong."
        )
