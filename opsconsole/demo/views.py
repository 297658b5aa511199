"""The demo's stand-in for somebody else's service: what its http_request tasks post to."""

from __future__ import annotations

import hmac
import json
import os

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST


@csrf_exempt
@require_POST
def inbox(request: HttpRequest) -> JsonResponse:
    """Answers what it was sent, to callers that bring the demo's secret."""
    wanted = f"Bearer {os.environ.get('OPSCONSOLE_SECRET_DEMO', '')}".encode()
    given = request.headers.get("Authorization", "").encode()
    if not os.environ.get("OPSCONSOLE_SECRET_DEMO") or not hmac.compare_digest(wanted, given):
        return JsonResponse({"error": "unknown caller"}, status=401)
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        return JsonResponse({"error": "the body is no JSON"}, status=400)
    return JsonResponse({"received": body})
