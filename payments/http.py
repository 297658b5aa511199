"""What the addresses of payments share: reading a body, and answers that say what to do."""

from __future__ import annotations

import traceback

import structlog
from django.db import DataError, Error
from django.http import HttpRequest, HttpResponse, JsonResponse

from payments.intake import Receipt, Verdict

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
    """The verdict on a delivery, for whoever sent it. Why it was rejected is told; any other reason
    may quote the ledger, amounts and addresses, and is for who may see its delivery."""
    if receipt.http_status == 503:
        return unavailable()
    said: dict[str, str] = {"verdict": receipt.verdict.value}
    if receipt.verdict is Verdict.REJECTED:
        said["reason"] = receipt.reason
    return JsonResponse(said, status=receipt.http_status)


def failed(event: str, error: Exception, **what: str) -> None:
    """Log a failure without what it may quote: the row, the body, the address and all."""
    stack = "".join(traceback.format_tb(error.__traceback__))
    log.error(event, error=type(error).__name__, reason=_reason(error), stack=stack, **what)


def _reason(error: Exception) -> str:
    """Its first line, where that names things only. A database's error goes on to show the row, and
    one about a value (DataError) quotes it at once, as any exception of other hands may."""
    ours = type(error).__module__.startswith("payments.")
    if isinstance(error, DataError) or not (ours or isinstance(error, Error)):
        return ""
    return (str(error).splitlines() or [""])[0][:200]


def unavailable(what: str = "delivery") -> JsonResponse:
    return problem(
        503, f"The {what} was not recorded. Send it again.", **{"Retry-After": RETRY_AFTER_SECONDS}
    )


def too_large(most: int) -> JsonResponse:
    return problem(413, f"The body is larger than {most:,} bytes.")


def post_only(request: HttpRequest, message: str) -> HttpResponse:
    return without_body_of_head(request, problem(405, message, Allow="POST"))


def without_body_of_head(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """The answer as it may be sent: the web server complains of a body where none is allowed."""
    if request.method == "HEAD":
        response.content = b""
    return response


def problem(status: int, message: str, **headers: object) -> JsonResponse:
    return JsonResponse(
        {"error": message}, status=status, headers={name: str(v) for name, v in headers.items()}
    )
