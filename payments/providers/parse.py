"""Reading a provider's JSON without trusting it. What is not as it should be raises Rejected."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

from payments.providers.base import Rejected

# What a shop may write into a text of its own, such as the name of an order.
SHOP_TEXT = 500
MOST_MINOR_UNITS = 2**53  # What every JSON reader on the way can hold exactly.
_CURRENCY = re.compile(r"[A-Z]{3}")


def json_object(body: bytes) -> dict[str, Any]:
    """The body's JSON object."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Rejected("The body is not UTF-8 text.") from None
    except RecursionError:
        raise Rejected("The body is nested too deeply.") from None
    except json.JSONDecodeError:
        raise Rejected("The body is not JSON.") from None
    except ValueError:
        raise Rejected("The body holds a number of too many digits.") from None
    if not isinstance(value, dict):
        kind = "null" if value is None else _kind(value)
        raise Rejected(f"The body is {kind}, not a JSON object.")
    return value


def member(parent: dict[str, Any], path: str) -> dict[str, Any]:
    """The object at a dotted path."""
    value: Any = parent
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise Rejected(_not(path, value, "an object"))
    return value


def text(parent: dict[str, Any], key: str, *, most: int = 100) -> str:
    """A text of 1 to `most` printable characters, which leaves out NUL and half surrogates."""
    value = parent.get(key)
    if not isinstance(value, str) or not value:
        raise Rejected(_not(key, value, "a text"))
    if len(value) > most:
        raise Rejected(f"{key} is {len(value)} characters long; the most is {most}.")
    if not value.isprintable():
        raise Rejected(f"{key} holds a character that cannot be printed.")
    return value


def optional_text(parent: dict[str, Any], key: str, *, most: int = 100) -> str | None:
    """The same, or None where it is null, missing or empty."""
    return None if parent.get(key) in (None, "") else text(parent, key, most=most)


def lenient_text(parent: dict[str, Any], key: str, *, most: int = 100) -> str | None:
    """The same, or None also where it is not as it should be: one odd payment must not end the
    reading of many."""
    try:
        return optional_text(parent, key, most=most)
    except Rejected:
        return None


def moment(parent: dict[str, Any], key: str) -> datetime | None:
    """Seconds since 1970, or None where there are none."""
    value = parent.get(key)
    if not isinstance(value, int) or not 0 < value < 2**33:
        return None
    return datetime.fromtimestamp(value, UTC)


def amount(parent: dict[str, Any], key: str) -> int:
    """A whole, non-negative number of minor units; 1.0, true and "1" are none."""
    value = parent.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Rejected(_not(key, value, "a whole number of minor units"))
    if value < 0:
        raise Rejected(f"{key} is negative.")
    if value > MOST_MINOR_UNITS:
        raise Rejected(f"{key} is above 2**53.")
    return value


def currency(parent: dict[str, Any], key: str) -> str:
    """Three capital letters."""
    value = parent.get(key)
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise Rejected(f"{key} is not a currency code of three capital letters.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Rejected(f"The body is not JSON: {name} is no number.")


def _not(key: str, value: Any, wanted: str) -> str:
    kind = _kind(value)
    return (
        f"{key} is {kind}." if kind in ("missing", "empty") else f"{key} is {kind}, not {wanted}."
    )


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names = {bool: "a boolean", float: "a fraction", int: "a number", str: "a text", list: "a list"}
    return "empty" if value == "" else names.get(type(value), "an object")
