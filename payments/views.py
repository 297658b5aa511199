"""The address that payment providers post to."""

from __future__ import annotations

import traceback

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from payments import intake
from payments.providers.base import NotConfigured, UnknownProvider, load

log = structlog.get_logger(__name__)

MOST_BODY_BYTES = 1024 * 1024
RETRY_AFTER_SECONDS = 30


class _TooLarge(Exception):
    pass


@csrf_exempt
def webhook(request: HttpRequest, provider: str) -> HttpResponse:
    """Take one delivery. 2xx: it is recorded, with all its effects. 503: send it again."""
    try:
        load(provider)
    except UnknownProvider as error:
        return _problem(404, str(error))
    if request.method != "POST":
        return _problem(405, "Deliveries are posted here.", Allow="POST")
    try:
        receipt = intake.receive(provider, _body(request), request.headers)
    except _TooLarge:
        return _problem(413, f"The body is larger than {MOST_BODY_BYTES:,} bytes.")
    except NotConfigured as error:
        log.error("webhook refused: no secret is set", provider=provider, remedy=str(error))
        return _unavailable()
    except Exception as error:
        _log_failure(provider, error)
        return _unavailable()
    answer: dict[str, str] = {"verdict": receipt.verdict.value}
    if receipt.reason:
        answer["reason"] = receipt.reason
    return JsonResponse(answer, status=receipt.http_status)


def _body(request: HttpRequest) -> bytes:
    """The raw body. Raises _TooLarge, before reading any of it where its length is announced."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if length.isdecimal() and int(length) > MOST_BODY_BYTES:
        raise _TooLarge
    stream = request
    if not length and request.META.get("wsgi.input_terminated"):
        # A chunked body has no length; Django would take it for an empty one.
        stream = request.META["wsgi.input"]
    body: bytes = stream.read(MOST_BODY_BYTES + 1)
    if len(body) > MOST_BODY_BYTES:
        raise _TooLarge
    return body


def _log_failure(provider: str, error: Exception) -> None:
    # A database's error goes on, after its first line, to quote the row: body, address and all.
    reason = (str(error).splitlines() or [""])[0][:200]
    log.error(
        "webhook failed; the provider will send it again",
        provider=provider,
        error=type(error).__name__,
        reason=reason,
        stack="".join(traceback.format_tb(error.__traceback__)),
    )


def _unavailable() -> JsonResponse:
    return _problem(
        503, "The delivery was not recorded. Send it again.", **{"Retry-After": RETRY_AFTER_SECONDS}
    )


def _problem(status: int, message: str, **headers: object) -> JsonResponse:
    return JsonResponse(
        {"error": message}, status=status, headers={name: str(v) for name, v in headers.items()}
    )
