"""Hiding what must not be read: values whose key says that they are secret."""

from __future__ import annotations

from typing import Any

from django.conf import settings

REDACTED = "[redacted]"
DEEPEST = 100


def redact(value: Any) -> Any:
    """A copy of a JSON value without its secrets, at any depth.

    A value is replaced by "[redacted]" when its key holds one of settings.QUEUE_REDACTED_KEYS,
    whatever the case and punctuation: api_key hides "X-Api-Key" and "apiKey" too. What is nested
    more than 100 levels deep is replaced by "[too deep]".
    """
    words = {plain for word in settings.QUEUE_REDACTED_KEYS if (plain := _letters(word))}
    return _redact(value, words, DEEPEST)


def _redact(value: Any, words: set[str], levels: int) -> Any:
    if not isinstance(value, dict | list | tuple):
        return value
    if not levels:
        return "[too deep]"
    if isinstance(value, dict):
        return {
            key: REDACTED if _is_secret(key, words) else _redact(item, words, levels - 1)
            for key, item in value.items()
        }
    return [_redact(item, words, levels - 1) for item in value]


def _is_secret(key: Any, words: set[str]) -> bool:
    plain = _letters(str(key))
    return any(word in plain for word in words)


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
