"""What the shop itself calls: its servers announce orders, its customers' browsers bring callbacks."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.views.decorators.csrf import csrf_exempt

from payments import intake, ledger
from payments.http import (
    TooLarge,
    answer,
    failed,
    post_only,
    problem,
    raw_body,
    too_large,
    unavailable,
)
from payments.ledger import OrderError
from payments.providers.base import NotConfigured, UnknownProvider

log = structlog.get_logger(__name__)

MOST_BODY_BYTES = 16 * 1024
ORDER_FIELDS = ("order_id", "amount", "currency", "email", "provider")


class _Unreadable(ValueError):
    pass


@csrf_exempt
def verify(request: HttpRequest) -> HttpResponse:
    """Take a checkout's callback, as JSON or as a form: Razorpay's three fields, and `provider`
    where it is another. 200: the payment is recorded. The signature stands in for a CSRF token."""
    if request.method != "POST":
        return post_only(request, "Callbacks are posted here.")
    try:
        body = raw_body(request, MOST_BODY_BYTES)
        fields = _fields(body, request.content_type or "")
        provider = fields.get("provider") or "razorpay"
        receipt = intake.receive_callback(provider, body, fields, request.headers)
    except TooLarge:
        return too_large(MOST_BODY_BYTES)
    except _Unreadable as error:
        return problem(400, str(error))
    except UnknownProvider as error:
        return problem(404, str(error))
    except NotConfigured as error:
        log.error("callback refused: no key is set", remedy=str(error))
        return unavailable()
    except Exception as error:
        failed("callback failed", error)
        return unavailable()
    return answer(receipt)


@csrf_exempt
def orders(request: HttpRequest) -> HttpResponse:
    """Announce an order: a JSON object with order_id, amount (minor units) and, if not the default,
    currency, email and provider; a token of PAYMENTS_API_TOKENS in `Authorization: Bearer`.

    201: announced. 200: known and alike. 409: known otherwise; `difference` has both values.
    """
    if request.method != "POST":
        return post_only(request, "Orders are posted here.")
    if not _may_announce(request):
        return problem(
            401,
            "Give a token of PAYMENTS_API_TOKENS as Authorization: Bearer …",
            **{"WWW-Authenticate": "Bearer"},
        )
    try:
        given = _object(raw_body(request, MOST_BODY_BYTES))
        if unknown := sorted(set(given) - set(ORDER_FIELDS)):
            raise OrderError(f"unknown key {unknown[0]!r}; an order has {', '.join(ORDER_FIELDS)}.")
        if missing := [name for name in ("order_id", "amount") if name not in given]:
            raise OrderError(f"{missing[0]} is missing.")
        made = ledger.expect_order(**given)
    except TooLarge:
        return too_large(MOST_BODY_BYTES)
    except (_Unreadable, OrderError) as error:
        return problem(400, str(error))
    except Exception as error:
        failed("an order was not announced", error)
        return unavailable("order")
    status = 201 if made.created else 409 if made.difference else 200
    said: dict[str, Any] = {"id": str(made.id), "status": made.status, "created": made.created}
    if made.difference:
        said["difference"] = made.difference
    return JsonResponse(said, status=status)


def _may_announce(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    known = [known.strip() for known in settings.PAYMENTS_API_TOKENS if known.strip()]
    given = token.strip().encode()
    # Every token is tried, so that the time taken does not tell which one fitted.
    fits = [hmac.compare_digest(one.encode(), given) for one in known]
    return scheme.lower() == "bearer" and any(fits)


def _fields(body: bytes, content_type: str) -> Mapping[str, str]:
    if content_type == "application/x-www-form-urlencoded":
        try:
            form = QueryDict(body.decode("ascii"), encoding="utf-8")
        except ValueError:
            raise _Unreadable("The form is not URL-encoded.") from None
        return {name: str(value) for name, value in form.items()}
    return {name: value for name, value in _object(body).items() if isinstance(value, str)}


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise _Unreadable("The body is not JSON in UTF-8.") from None
    except ValueError:
        raise _Unreadable("The body holds a number of too many digits.") from None
    if not isinstance(given, dict):
        raise _Unreadable("The body is not a JSON object.")
    return given
