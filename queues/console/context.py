"""What every page needs: the navigation. Other apps add their places: `add_place(Place(...))`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from queues.version import VERSION


@dataclass(frozen=True)
class Place:
    """An entry of the navigation, seen by those who hold the permission."""

    label: str
    url_name: str
    permission: str


navigation = [
    Place("Overview", "queue:overview", "queue.view_task"),
    Place("Tasks", "queue:tasks", "queue.view_task"),
    Place("Stuck", "queue:stuck", "queue.view_task"),
    Place("Workers", "queue:workers", "queue.view_worker"),
    Place("Operations", "queue:operations", "queue.view_operation"),
    Place("Admin", "admin:index", ""),
]


def add_place(place: Place) -> None:
    """Add another app's entry; the admin's stays the last."""
    navigation.insert(len(navigation) - 1, place)


def console(request: HttpRequest) -> dict[str, Any]:
    user = getattr(request, "user", None)
    if user is None or not user.is_staff:
        return {"console_version": VERSION}
    places = []
    for place in navigation:
        if place.permission and not user.has_perm(place.permission):
            continue
        url = reverse(place.url_name)
        current = request.path == url or (url != "/" and request.path.startswith(url))
        places.append({"label": place.label, "url": url, "current": current})
    return {"console_places": places, "console_version": VERSION}
