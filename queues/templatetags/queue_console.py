"""Filters and tags of the console's templates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from queues.console import formats
from queues.redaction import redact

register = template.Library()

register.filter(
    "duration", lambda v: formats.duration(v.total_seconds() if isinstance(v, timedelta) else v)
)
register.filter("number", formats.number)


@register.filter
def status(value: str) -> SafeString:
    """A status as icon and word, in its one colour."""
    return format_html(
        '<span class="status status-{}"><svg aria-hidden="true" class="icon"><use href="#icon-{}"/></svg>{}</span>',
        value,
        value,
        value,
    )


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """A moment in the server's zone, which the page turns into the reader's; UTC on hover."""
    if value is None:
        return "–"
    local = timezone.localtime(value)
    return format_html(
        '<time datetime="{}" title="{} UTC" data-moment>{}</time>',
        value.isoformat(),
        f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        f"{local:%Y-%m-%d %H:%M:%S %Z}",
    )


@register.filter
def ago(value: datetime | None) -> SafeString | str:
    """How long ago, or in how long; the moment itself on hover."""
    if value is None:
        return "–"
    seconds = (timezone.now() - value).total_seconds()
    text = (
        f"{formats.duration(seconds)} ago" if seconds >= 0 else f"in {formats.duration(-seconds)}"
    )
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        text,
    )


@register.filter
def since(value: datetime | None) -> str:
    """How long since then: "4 min 12 s"."""
    return formats.duration(None if value is None else (timezone.now() - value).total_seconds())


@register.filter
def pretty(value: Any) -> str:
    """JSON, indented, with the values of secret keys hidden."""
    return json.dumps(redact(value), indent=2, ensure_ascii=False, sort_keys=False)


@register.filter
def short_id(value: Any) -> str:
    """The end of an id: the start is its time and alike in all rows of a page."""
    return str(value)[-12:]
