"""Two sides of one payment, field by field: what the ledger has and what was told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from payments.judgement import known_email, same
from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount

FIELDS = {
    "provider": "Provider",
    "order_id": "Order",
    "payment_id": "Payment",
    "status": "Status",
    "amount": "Amount",
    "refunded": "Went back",
    "currency": "Currency",
    "email": "E-mail",
}
MONEY = ("amount", "refunded")
NONE = "–"


@dataclass(frozen=True)
class Line:
    """One field, as either side has it, for people. An address that one side does not know is no
    difference, nor is its case."""

    label: str
    ours: str
    theirs: str
    differs: bool


def lines(
    ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, *, states: bool = True
) -> list[Line]:
    """The fields that either side knows. states: whether the two should be in the same one; news of a
    payment need not be of its latest state."""
    found = _lines(ours or {}, theirs or {})
    if states:
        return list(found)
    moving = (FIELDS["status"], FIELDS["refunded"])
    return [replace(line, differs=False) if line.label in moving else line for line in found]


def contradicts(compared: list[Line]) -> bool:
    """Whether they differ in more than how far the payment is: that cannot be recorded as its news."""
    moving = (FIELDS["status"], FIELDS["refunded"])
    return any(line.differs and line.label not in moving for line in compared)


def telling(compared: list[Line]) -> list[Line]:
    """Those that differ; where one side is missing, what there is to know of the other's money."""
    money = (FIELDS["status"], FIELDS["amount"])
    return [line for line in compared if line.differs] or [
        line for line in compared if line.label in money
    ]


def _lines(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Line]:
    for name, label in FIELDS.items():
        here, there = ours.get(name), theirs.get(name)
        if here in (None, "") and there in (None, ""):
            continue
        if name == "provider" and None in (here, there):
            continue
        differs = bool(ours and theirs and name in theirs) and here != there
        if name in ("email", "refunded", "order_id", "payment_id") and None in (here, there):
            differs = False
        if differs and name == "email":
            differs = not same(str(here), str(there))
        yield Line(label, _text(name, here, ours), _text(name, there, theirs), differs)


def _text(name: str, value: Any, side: Mapping[str, Any]) -> str:
    if value in (None, ""):
        return NONE
    if name in MONEY and isinstance(value, int) and isinstance(side.get("currency"), str):
        return format_amount(value, side["currency"])
    return str(value).replace("_", " ") if name == "status" else str(value)


def ledger_side(row: Transaction | None) -> dict[str, Any] | None:
    """The ledger's row as a side, with the address that news of it is compared with."""
    if row is None:
        return None
    return {name: getattr(row, name) for name in FIELDS} | {"email": known_email(row) or row.email}


def sides_of(delivery: WebhookDelivery) -> tuple[Transaction | None, list[Line]]:
    """The transaction that a delivery speaks of, as it is now, beside what the delivery says."""
    id = delivery.transaction_id
    row = Transaction.objects.filter(pk=id).first() if id else None
    return row, told_by(row, delivery)


def told_by(row: Transaction | None, delivery: WebhookDelivery) -> list[Line]:
    """A transaction as it is now beside what a delivery says."""
    claim = {"provider": delivery.provider, **delivery.claim} if delivery.claim else None
    if claim and claim.get("status") == "refund_failed":
        return lines(ledger_side(row), _without_refund(row, claim))
    return lines(ledger_side(row), claim, states=False)


def _without_refund(row: Transaction | None, claim: dict[str, Any]) -> dict[str, Any]:
    """What a refund that failed leaves: its amount is no amount of the order's."""
    names = ("provider", "order_id", "payment_id", "currency")
    left = {name: claim[name] for name in names if claim.get(name)}
    if row and row.refunded and row.payment_id == claim.get("payment_id"):
        back = max(0, row.refunded - int(claim.get("amount") or 0))
        left |= {"refunded": back, "status": "partially_refunded" if back else "paid"}
    return left
