"""What people see when the database does not answer."""

from __future__ import annotations

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin

log = structlog.get_logger(__name__)


class DatabaseDownMiddleware(MiddlewareMixin):
    """Answers 503 with a page that says so, and when to try again, instead of a bare 500."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        log.error("the database does not answer", path=request.path, error=str(error).strip())
        page = render_to_string("503.html")
        return HttpResponse(page, status=503, headers={"Retry-After": "10"})
