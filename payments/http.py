"""What the addresses of payments share: reading a body, and answers that say what to do."""

from __future__ import annotations

import traceback

import structlog
from django.http import HttpRequest, JsonResponse

from payments.intake import Receipt

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 30


class TooLarge(Exception):
    """The body is longer than what is taken."""


def raw_body(request: HttpRequest, most: int) -> bytes:
    """The raw body. Raises TooLarge, before reading any of it where its length is announced."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if length.isdecimal() and int(length) > most:
        raise TooLarge
    stream = request
    if not length and request.META.get("wsgi.input_terminated"):
        # A chunked body has no length; Django would take it for an empty one.
        stream = request.META["wsgi.input"]
    body: bytes = stream.read(most + 1)
    if len(body) > most:
        raise TooLarge
    return body


def answer(receipt: Receipt) -> JsonResponse:
    """The verdict on a delivery, for whoever sent it."""
    said: dict[str, str] = {"verdict": receipt.verdict.value}
    if receipt.reason:
        said["reason"] = receipt.reason
    return JsonResponse(said, status=receipt.http_status)


def failed(event: str, error: Exception, **what: str) -> None:
    """Log a failure without what it may quote: a database's error goes on, after its first line, to
    show the row, body, address and all."""
    reason = (str(error).splitlines() or [""])[0][:200]
    stack = "".join(traceback.format_tb(error.__traceback__))
    log.error(event, error=type(error).__name__, reason=reason, stack=stack, **what)


def unavailable(what: str = "delivery") -> JsonResponse:
    return problem(
        503, f"The {what} was not recorded. Send it again.", **{"Retry-After": RETRY_AFTER_SECONDS}
    )


def too_large(most: int) -> JsonResponse:
    return problem(413, f"The body is larger than {most:,} bytes.")


def problem(status: int, message: str, **headers: object) -> JsonResponse:
    return JsonResponse(
        {"error": message}, status=status, headers={name: str(v) for name, v in headers.items()}
    )
