"""What a payment provider is to us: something that turns a signed POST into one event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from django.conf import settings
from django.utils.module_loading import import_string

Status = Literal["authorized", "paid", "failed", "refunded"]


class Rejected(Exception):
    """The delivery is genuine but not as its provider documents it, or is not genuine at all."""

    http_status: ClassVar[int] = 400

    @property
    def reason(self) -> str:
        return str(self)


class BadSignature(Rejected):
    """The delivery does not prove that the provider sent it."""

    http_status = 401


class UnknownProvider(LookupError):
    """PAYMENT_PROVIDERS names no such provider."""


class NotConfigured(Exception):
    """The provider has no webhook secret here, so nothing it sends can be checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a provider tells in one delivery, in our words.

    status: what it says of the order's money; None for an event that is only recorded. With a
    status, order_id, amount (minor units) and currency are always given. note: what a person should
    know of an event without a status.
    """

    event_id: str
    event_type: str
    order_id: str | None = None
    payment_id: str | None = None
    email: str | None = None
    amount: int | None = None
    currency: str | None = None
    status: Status | None = None
    note: str = ""


class Provider(ABC):
    """One payment provider. Its class is named in PAYMENT_PROVIDERS."""

    name: ClassVar[str]
    # The headers, beside the usual ones, that are kept with a delivery. Never the signature.
    kept_headers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Event:
        """The event in this delivery, which any one of the secrets may have signed.

        Pure: it reads no clock, database or setting. Raises BadSignature when no secret fits,
        Rejected when the body is not what the provider documents.
        """


def load(name: str) -> Provider:
    """The provider of this name. Raises UnknownProvider."""
    path = settings.PAYMENT_PROVIDERS.get(name)
    if path is None:
        raise UnknownProvider(f"There is no payment provider {name!r}.")
    provider: Provider = import_string(path)()
    return provider


def webhook_secrets(name: str) -> list[str]:
    """The provider's secrets, the current one first. Raises NotConfigured when there is none.

    Blank entries are left out: an empty secret is one that everybody knows.
    """
    setting = f"{name.upper().replace('-', '_')}_WEBHOOK_SECRETS"
    secrets = [secret.strip() for secret in getattr(settings, setting, []) if secret.strip()]
    if not secrets:
        raise NotConfigured(f"{setting} is empty: set it to the secret that {name} signs with.")
    return secrets


def header(headers: Mapping[str, str], name: str) -> str:
    """The header's value whatever the case of its name, or an empty text."""
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), "")
