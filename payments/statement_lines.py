"""One line of a statement becomes a payment. What is not as it should be raises ValueError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from payments import money
from payments.providers.base import Payment, Status
from payments.providers.parse import MOST_MINOR_UNITS, SHOP_TEXT

# Our name of each column, and what it is called in exports; the first that is filled in is taken.
COLUMNS = {
    "payment_id": ("payment_id", "paymentintent_id", "payment_intent", "entity_id", "id"),
    "order_id": ("order_id", "order_id_metadata", "metadata_order_id"),
    "amount": ("amount",),
    "amount_minor": ("amount_minor",),
    "refunded": ("refunded", "amount_refunded"),
    "refunded_minor": ("refunded_minor",),
    "currency": ("currency",),
    "status": ("status",),
    "type": ("type",),
    "email": ("email", "customer_email", "receipt_email"),
    "created_at": ("created_at", "created", "created_utc", "created_date_utc"),
}
NEEDED = (("payment_id",), ("amount", "amount_minor"), ("currency",), ("status", "type"))
# The lines that are payments; the others of a settlement are refunds, fees and transfers.
TYPES = ("", "payment", "charge", "payment_intent")
STATUS: dict[str, Status] = {
    **dict.fromkeys(("created", "pending", "processing", "incomplete"), "created"),
    **dict.fromkeys(("requires_payment_method", "requires_action"), "created"),
    **dict.fromkeys(("authorized", "uncaptured", "requires_capture"), "authorized"),
    **dict.fromkeys(("paid", "captured", "succeeded", "settled"), "paid"),
    **dict.fromkeys(("failed", "canceled", "cancelled", "blocked"), "failed"),
    **dict.fromkeys(("partially_refunded", "partial_refund"), "partially_refunded"),
    "refunded": "refunded",
}
# How Razorpay's exports write a moment, beside ISO 8601 and seconds since 1970.
DAY_FIRST = ("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y")
_CURRENCY = re.compile(r"[A-Z]{3}")
_MINOR = re.compile(r"[0-9]{1,16}")


class Columns:
    """Where a statement's header says that each thing stands."""

    def __init__(self, header: Sequence[str], *, in_minor_units: bool) -> None:
        """Raises ValueError where a column is missing."""
        self._header = header
        self._in_minor_units = in_minor_units
        names = [_plain(cell) for cell in header]
        self._places = {
            ours: [names.index(name) for name in theirs if name in names]
            for ours, theirs in COLUMNS.items()
        }
        for either in NEEDED:
            if not any(self._places[name] for name in either):
                known = ", ".join(alias for name in either for alias in COLUMNS[name])
                raise ValueError(
                    f"no column is named {known}. The columns are: {', '.join(header)}"
                )

    def payment(self, line: Sequence[str]) -> Payment | None:
        """The payment of a line; None where the line is something else."""
        if len(line) != len(self._header):
            raise ValueError(f"{len(line)} fields, but the header has {len(self._header)}")
        if _plain(self._cell(line, "type")) not in TYPES:
            return None
        currency = self._cell(line, "currency").upper()
        if not _CURRENCY.fullmatch(currency):
            raise ValueError(f"currency is {currency!r}, not three letters")
        amount = self._amount(line, "amount", currency)
        if amount is None:
            raise ValueError("amount is empty")
        status, refunded = self._status(line, amount, self._amount(line, "refunded", currency))
        return Payment(
            payment_id=_text(self._cell(line, "payment_id"), "payment_id", 100),
            order_id=self._optional(line, "order_id", SHOP_TEXT),
            status=status,
            amount=amount,
            currency=currency,
            refunded=refunded,
            email=self._optional(line, "email", 320),
            created_at=_moment(self._cell(line, "created_at")),
            raw=self._raw(line),
        )

    def _cell(self, line: Sequence[str], name: str) -> str:
        cells = (line[place].strip() for place in self._places[name])
        return next((cell for cell in cells if cell), "")

    def _optional(self, line: Sequence[str], name: str, most: int) -> str | None:
        cell = self._cell(line, name)
        return _text(cell, name, most) if cell else None

    def _amount(self, line: Sequence[str], name: str, currency: str) -> int | None:
        """Minor units; None where the cell is empty or the column is missing."""
        minor = self._cell(line, f"{name}_minor")
        major = self._cell(line, name)
        if minor and major:
            raise ValueError(f"{name} and {name}_minor are both filled in")
        if self._in_minor_units:
            minor, major = minor or major, ""
        if minor and not _MINOR.fullmatch(minor):
            raise ValueError(f"{name} is {minor!r}, not a whole number of minor units")
        if not (minor or major):
            return None
        amount = int(minor) if minor else money.minor_units(major, currency)
        if amount > MOST_MINOR_UNITS:
            raise ValueError(f"{name} is above 2**53 minor units")
        return amount

    def _status(
        self, line: Sequence[str], amount: int, refunded: int | None
    ) -> tuple[Status, int | None]:
        """The status, and what was given back: None where the statement does not tell of that."""
        told = bool(self._places["refunded"] or self._places["refunded_minor"])
        if told:
            refunded = refunded or 0
        # A settlement has no such column: what is settled was paid.
        word = self._cell(line, "status") if self._places["status"] else "paid"
        status = STATUS.get(_plain(word))
        if status is None:
            raise ValueError(f"status is {word!r}; known are {', '.join(STATUS)}")
        if status == "refunded":
            return status, refunded or amount
        if status == "partially_refunded" and not refunded:
            raise ValueError("it is partially refunded, but no column refunded says how much")
        if status == "paid" and refunded:
            status = "refunded" if refunded >= amount else "partially_refunded"
        return status, refunded

    def _raw(self, line: Sequence[str]) -> dict[str, Any]:
        return {name: cell for name, cell in zip(self._header, line, strict=True) if cell}


def _plain(name: str) -> str:
    """A name without its case, spaces and signs: Created date (UTC) becomes created_date_utc."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _text(cell: str, name: str, most: int) -> str:
    if not cell:
        raise ValueError(f"{name} is empty")
    if len(cell) > most or not cell.isprintable():
        raise ValueError(f"{name} is not a text of at most {most} printable characters")
    return cell


def _moment(cell: str) -> datetime | None:
    """A moment, in UTC where it does not say otherwise; None where the cell is empty."""
    if not cell:
        return None
    if cell.isascii() and cell.isdecimal() and len(cell) <= 10:
        return datetime.fromtimestamp(int(cell), UTC)
    for form in ("", *DAY_FIRST):
        try:
            moment = datetime.strptime(cell, form) if form else datetime.fromisoformat(cell)
        except ValueError:
            continue
        if 1970 < moment.year < 9999:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise ValueError(f"created_at is {cell!r}: write it as 2026-11-30 18:05:00, in UTC")
