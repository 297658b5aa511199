"""A delivery's body for people: as text, without its secrets, and not longer than a page bears."""

from __future__ import annotations

import json
from typing import NamedTuple

from queues.redaction import redact

LONGEST = 100_000


class Body(NamedTuple):
    """`left_out`: characters beyond what is shown."""

    text: str
    left_out: int
    size: int


def shown_body(body: bytes) -> Body:
    text = readable_body(body)
    return Body(text[:LONGEST], max(0, len(text) - LONGEST), len(body))


def readable_body(body: bytes) -> str:
    """The body as text. Where it is JSON, the values of QUEUE_REDACTED_KEYS are left out."""
    text = body.decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
        return json.dumps(redact(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
