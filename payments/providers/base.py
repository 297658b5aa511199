"""What a payment provider is to us: something that turns a signed POST into one event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from django.conf import settings
from django.utils.module_loading import import_string

Status = Literal["created", "authorized", "paid", "failed", "partially_refunded", "refunded"]
# What an event can tell of the money, beside the states of a payment.
News = Status | Literal["refund_failed"]


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


class IncompleteEvent(TypeError):
    """A provider's module made an event that lacks what its status needs."""


class ProviderError(Exception):
    """The provider, asked for its books, refused, failed or did not answer."""


@dataclass(frozen=True, slots=True)
class Callback:
    """What a checkout's callback proves: this payment is one of this order."""

    order_id: str
    payment_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a provider tells in one delivery, in our words.

    status: what it says of the order's money; None for an event that is only recorded. With a
    status, payment_id, amount (minor units) and currency are always given. An event that names no
    order means the order of its payment; order_follows: another event may yet name it, so its
    fulfilment waits for that. refunded: all that was given back so far. note: what a person should
    know of an event without a status.

    "refund_failed": a refund of the payment did not go through, after its money had been told as
    given back; amount is that refund's.
    """

    event_id: str
    event_type: str
    order_id: str | None = None
    payment_id: str | None = None
    email: str | None = None
    amount: int | None = None
    currency: str | None = None
    status: News | None = None
    refunded: int = 0
    note: str = ""
    order_follows: bool = False

    def __post_init__(self) -> None:
        """Raises IncompleteEvent."""
        if self.status is None:
            return
        needed = {"payment_id": self.payment_id, "amount": self.amount, "currency": self.currency}
        if missing := [name for name, value in needed.items() if value in (None, "")]:
            raise IncompleteEvent(
                f"The event {self.event_type} has the status {self.status}, and so it needs "
                f"{' and '.join(missing)}, too."
            )

    def claim(self) -> dict[str, Any]:
        """What receive_delivery records of it."""
        return {
            "status": self.status,
            "order_id": self.order_id,
            "payment_id": self.payment_id,
            "email": self.email,
            "amount": self.amount,
            "currency": self.currency,
            "refunded": self.refunded,
            "note": self.note,
            "order_follows": self.order_follows,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as the provider's books have it, for the comparison with ours.

    `refunded`: all that was given back so far; None where the books do not tell. `raw`: the
    provider's own object, kept as the body where a person has it recorded.
    """

    payment_id: str
    order_id: str | None
    status: Status
    amount: int
    currency: str
    refunded: int | None = 0
    email: str | None = None
    created_at: datetime | None = None
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A payment of the provider's books that cannot be read: its id, where that can be, and why."""

    payment_id: str | None
    reason: str


# One payment of the books. One that is odd must not hide the others.
Booked = Payment | Unread


class Provider(ABC):
    """One payment provider. Its class is named in PAYMENT_PROVIDERS."""

    name: ClassVar[str]
    # The headers, beside the usual ones, that are kept with a delivery. Never the signature.
    kept_headers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Event:
        """The event in this delivery, which any one of the secrets may have signed.

        Reads no database and no setting. Raises BadSignature when no secret fits, Rejected when the
        body is not what the provider documents.
        """

    def verify_callback(self, fields: Mapping[str, str]) -> Callback:
        """What the customer's browser brings back from the checkout, its signature checked.

        Raises BadSignature, NotConfigured, or Rejected where the provider has no such callback.
        """
        raise Rejected(
            f"{self.name} signs nothing in the browser; its webhook tells of the payment."
        )

    def has_key(self) -> bool:
        """Whether the key is set that its books are asked with."""
        return False

    def payments(self, since: datetime, until: datetime) -> Iterator[Booked]:
        """The payments made from `since` on and before `until`, asked from the provider.

        Raises NotConfigured without the key for that, ProviderError when the provider does not
        answer as it should.
        """
        raise NotConfigured(f"{self.name} cannot be asked; import its statement instead.")

    def payment(self, payment_id: str) -> Booked | None:
        """The payment of this id; None where the books have none. Raises as payments() does."""
        raise NotConfigured(f"{self.name} cannot be asked; import its statement instead.")

    def payments_of(self, order_id: str) -> Sequence[Booked]:
        """The payments of one order, none where the provider does not know it. Raises as payments()
        does."""
        raise NotConfigured(f"{self.name} cannot be asked; import its statement instead.")


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
