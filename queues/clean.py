"""Text and JSON that PostgreSQL can hold: it refuses NUL characters and lone surrogates."""

from __future__ import annotations

import json
from typing import Any

# Made once: json.dumps() makes an encoder for every call with options.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


def has_unstorable(text: str) -> bool:
    """Whether text holds a NUL character or half of a surrogate pair."""
    return "\x00" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text))


def storable_text(text: str) -> str:
    """The text with each unstorable character replaced by U+FFFD, so that a report never fails."""
    if not has_unstorable(text):
        return text
    return "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in text)


def storable_json(value: Any) -> Any:
    """The same for every string of a JSON value, keys included."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(str(k)): storable_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """Strict JSON text: ValueError for NaN and infinities, TypeError for what JSON cannot hold."""
    return _encode(value)
