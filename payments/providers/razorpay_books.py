"""Razorpay's books, asked through its own client over a session of ours. Left alone that client waits
for ever, tries once, prints its failures and does not tell a wrong key from an unknown id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

import razorpay
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from payments.providers import parse
from payments.providers.base import Booked, Payment, ProviderError, Rejected, Status, Unread
from payments.providers.razorpay import NO_EMAIL, never_captured

# The most that its API gives at once.
PAGE = 100
TIMEOUT_SECONDS = 20
TRIES_AGAIN = 2
STATUS: dict[str, Status] = {
    "created": "created",
    "authorized": "authorized",
    "captured": "paid",
    "failed": "failed",
    "refunded": "refunded",
}


class RazorpayBooks:
    """What Razorpay tells of its payments. Raises ProviderError."""

    def __init__(self, key: str, secret: str, base: str) -> None:
        client: Any = razorpay.Client(session=Session(), auth=(key, secret), base_url=base)
        self._payments, self._orders = client.payment, client.order

    def payments(self, since: datetime, until: datetime) -> Iterator[Booked]:
        # Its bounds are whole seconds, both included.
        span = {"from": int(since.timestamp()), "to": int(until.timestamp()), "count": PAGE}
        skip = 0
        while True:
            with _asking("for its payments"):
                found = _booked_all(self._payments.all({**span, "skip": skip}))
            yield from found
            skip += len(found)
            if len(found) < PAGE:
                return

    def payment(self, payment_id: str) -> Booked | None:
        with _asking(f"for payment {payment_id}"):
            try:
                return _booked_or_unread(self._payments.fetch(quote(payment_id, safe="")))
            except NotThere:
                return None

    def payments_of(self, order_id: str) -> list[Booked]:
        with _asking(f"for the payments of order {order_id}"):
            try:
                return _booked_all(self._orders.payments(quote(order_id, safe="")))
            except NotThere:
                return []


class NotThere(ProviderError):
    """Razorpay knows nothing by the id that it was asked for."""


class Session(requests.Session):
    """A session with a time limit that tries again, and raises whatever is no answer."""

    def __init__(self) -> None:
        super().__init__()
        again = Retry(
            total=TRIES_AGAIN,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(max_retries=again))

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Gives an answer that holds a JSON object. Raises NotThere, ProviderError."""
        try:
            response = super().request(*args, **{"timeout": TIMEOUT_SECONDS, **kwargs})
        except requests.RequestException as error:
            raise ProviderError(f"Razorpay did not answer: {error}") from error
        body = _json_object(response)
        if response.ok and body is not None:
            return response
        said = body.get("error") if body else None
        description = said.get("description") if isinstance(said, dict) else None
        why = description or ("no JSON object" if body is None else "it does not say why")
        message = f"Razorpay answered {response.status_code}: {why}"
        # It answers so a question about an id that it does not know.
        unknown = response.status_code in (400, 404) and description
        raise NotThere(message) if unknown else ProviderError(message)


def _json_object(response: requests.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except requests.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Say of an answer that cannot be read what was asked."""
    try:
        yield
    except (Rejected, KeyError, TypeError) as error:
        raise ProviderError(f"Razorpay, asked {what}, gave what cannot be read: {error}") from error


def _booked_all(answer: dict[str, Any]) -> list[Booked]:
    return [_booked_or_unread(item) for item in answer["items"]]


def _booked_or_unread(item: dict[str, Any]) -> Booked:
    try:
        return _booked(item)
    except (Rejected, TypeError, AttributeError) as odd:
        payment_id = parse.lenient_text(item, "id") if isinstance(item, dict) else None
        return Unread(payment_id=payment_id, reason=str(odd))


def _booked(item: dict[str, Any]) -> Payment:
    payment_id = parse.text(item, "id")
    status = STATUS.get(cast(str, item.get("status")))
    if status is None:
        raise Rejected(f"payment {payment_id} has the unknown status {item.get('status')!r}.")
    refunded = parse.amount(item, "amount_refunded") if item.get("amount_refunded") else 0
    if status == "refunded" and never_captured(item):
        status, refunded = "failed", 0
    elif status == "paid" and refunded:
        status = "partially_refunded"
    email = parse.lenient_text(item, "email", most=320)
    return Payment(
        payment_id=payment_id,
        order_id=parse.lenient_text(item, "order_id", most=parse.SHOP_TEXT),
        status=status,
        amount=parse.amount(item, "amount"),
        currency=parse.currency(item, "currency"),
        refunded=refunded,
        email=None if email == NO_EMAIL else email,
        created_at=parse.moment(item, "created_at"),
        raw=item,
    )
