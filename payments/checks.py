"""What `manage.py check` says of the settings of payments."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string


def connect() -> None:
    """Have it asked before every command that checks the project."""
    checks.register(effect)


def effect(**kwargs: Any) -> list[checks.CheckMessage]:
    """PAYMENTS_EFFECT names a function that can be called."""
    path = settings.PAYMENTS_EFFECT
    try:
        found = import_string(path)
    # The module is other hands' code, which may raise anything while it is imported.
    except Exception as error:
        return [_error(f"PAYMENTS_EFFECT is {path!r}, which cannot be imported: {error}")]
    if not callable(found):
        return [_error(f"PAYMENTS_EFFECT is {path!r}, which is no function.")]
    return []


def _error(message: str) -> checks.Error:
    hint = "Name the function that fulfils an order, as in shop.effects.start_subscription."
    return checks.Error(message, hint=hint, id="payments.E001")
