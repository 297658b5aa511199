"""Amounts for people: minor units and a currency become a text, never a float."""

from __future__ import annotations

import re
from decimal import Decimal

# ISO 4217: currencies whose minor unit is not a hundredth.
_NO_MINOR_UNIT = frozenset(
    {
        *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
        *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
    }
)
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})
_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]{1,10})?")


def exponent(currency: str) -> int:
    """How many decimals an amount of this currency has."""
    return 0 if currency in _NO_MINOR_UNIT else 3 if currency in _THOUSANDTHS else 2


def minor_units(text: str, currency: str) -> int:
    """The text 1234.5 and INR become 123450. Raises ValueError, saying what to mend."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is no amount: write it as 1234.50, without sign or separators")
    digits = exponent(currency)
    minor = Decimal(text).scaleb(digits)
    if minor != int(minor):
        raise ValueError(f"{text} has more than the {digits} decimals of {currency}")
    return int(minor)


def format_amount(amount: int, currency: str) -> str:
    """123450 and INR become "INR 1,234.50"; 500 and JPY become "JPY 500"."""
    digits = exponent(currency)
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), 10**digits)
    return f"{currency} {sign}{whole:,}" + (f".{part:0{digits}}" if digits else "")
