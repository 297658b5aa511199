"""Amounts for people: minor units and a currency become a text, never a float."""

from __future__ import annotations

# ISO 4217: currencies whose minor unit is not a hundredth.
_NO_MINOR_UNIT = frozenset(
    {
        *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
        *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
    }
)
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})


def format_amount(amount: int, currency: str) -> str:
    """123450 and INR become "INR 1,234.50"; 500 and JPY become "JPY 500"."""
    digits = 0 if currency in _NO_MINOR_UNIT else 3 if currency in _THOUSANDTHS else 2
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), 10**digits)
    return f"{currency} {sign}{whole:,}" + (f".{part:0{digits}}" if digits else "")
