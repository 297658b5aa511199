"""The address that payment providers post to."""

from __future__ import annotations

import structlog
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from payments import intake
from payments.http import (
    TooLarge,
    answer,
    failed,
    post_only,
    problem,
    raw_body,
    too_large,
    unavailable,
    without_body_of_head,
)
from payments.providers.base import NotConfigured, UnknownProvider, load

log = structlog.get_logger(__name__)

MOST_BODY_BYTES = 1024 * 1024


@csrf_exempt
def webhook(request: HttpRequest, provider: str) -> HttpResponse:
    """Take one delivery. 2xx: it is recorded, with all its effects. 503: send it again."""
    try:
        load(provider)
    except UnknownProvider as error:
        return without_body_of_head(request, problem(404, str(error)))
    if request.method != "POST":
        return post_only(request, "Deliveries are posted here.")
    try:
        receipt = intake.receive(provider, raw_body(request, MOST_BODY_BYTES), request.headers)
    except TooLarge:
        return too_large(MOST_BODY_BYTES)
    except NotConfigured as error:
        log.error("webhook refused: no secret is set", provider=provider, remedy=str(error))
        return unavailable()
    except Exception as error:
        failed("webhook failed; the provider will send it again", error, provider=provider)
        return unavailable()
    return answer(receipt)
