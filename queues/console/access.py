"""Who may see a page, and what keeps a page from harming the database."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.middleware import HtmxDetails
from psycopg.errors import QueryCanceled

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]


def staff_with(permission: str) -> Callable[[View[P]], View[P]]:
    """Only staff that hold the permission; others are asked to log in, or refused with 403."""

    def wrap(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            user = request.user
            if not user.is_authenticated:
                return _ask_to_log_in(request)
            if not (user.is_active and user.is_staff and user.has_perm(permission)):
                raise PermissionDenied(permission)
            return view(request, *args, **kwargs)

        return checked

    return wrap


def _ask_to_log_in(request: HttpRequest) -> HttpResponse:
    """To the login page; a fragment asked for by htmx takes the whole page there."""
    if not getattr(request, "htmx", False):
        # A form that was sent cannot be sent again by a link: lead to where it stood.
        return redirect_to_login(
            request.get_full_path() if request.method == "GET" else way_back(request)
        )
    response = HttpResponse(status=204)
    response["HX-Refresh"] = "true"
    return response


def way_back(request: HttpRequest) -> str:
    """Where the form says that it stood, if that is a page of ours; else the task list."""
    back = request.POST.get("back", "")
    if url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return back
    return reverse("queue:tasks")


def page(permission: str) -> Callable[[View[P]], View[P]]:
    """A page to look at: permission, and a statement timeout with a page that says so."""

    def wrap(view: View[P]) -> View[P]:
        @staff_with(permission)
        @functools.wraps(view)
        def bounded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            seconds = settings.CONSOLE_STATEMENT_TIMEOUT_SECONDS
            try:
                with transaction.atomic():
                    with connection.cursor() as cursor:
                        # Compiling such short queries costs PostgreSQL more than running them.
                        cursor.execute(
                            "SELECT set_config('statement_timeout', %s, true),"
                            " set_config('jit', 'off', true)",
                            [f"{seconds * 1000:.0f}"],
                        )
                    return view(request, *args, **kwargs)
            except OperationalError as error:
                if not isinstance(error.__cause__, QueryCanceled):
                    raise
                return render(request, "queue/too_slow.html", {"seconds": seconds}, status=503)

        return bounded

    return wrap


def render_whole_or(
    request: HttpRequest, name: str, context: dict[str, Any], *, folder: str = "queue"
) -> HttpResponse:
    """The page `folder/name.html`, or for htmx its fragment `folder/_name.html` alone."""
    htmx: HtmxDetails = request.htmx  # type: ignore[attr-defined]  # set by its middleware
    fragment = htmx and not htmx.history_restore_request
    response = render(request, f"{folder}/{'_' if fragment else ''}{name}.html", context)
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response
