"""Numbers and times as people read them."""

from __future__ import annotations

CAP = 10_000


def duration(seconds: float | None) -> str:
    """Two units at most: "9 s", "4 min 12 s", "2 h 5 min", "3 d 4 h"."""
    if seconds is None:
        return "–"
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = max(0, round(seconds))
    for size, name, smaller, smaller_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def number(value: int | None, cap: int = CAP) -> str:
    """With thousands separated; above the cap of counting only "10,000+"."""
    if value is None:
        return "–"
    return f"{cap:,}+" if value > cap else f"{value:,}"


def count(value: int, noun: str) -> str:
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"
