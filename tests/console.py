"""Reading the console's pages in tests: what they say and where they lead, not how they look."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any

from django.http import HttpResponseBase
from django.utils.html import strip_tags

HTMX = {"HTTP_HX_REQUEST": "true"}


def html(response: Any) -> str:
    text: str = response.content.decode()
    return text


def words(response: Any) -> str:
    """The page as text, white space folded."""
    body = re.sub(r"<(script|style|datalist)\b.*?</\1>", " ", html(response), flags=re.DOTALL)
    return " ".join(unescape(strip_tags(body.replace("<", " <"))).split())


class _Elements(HTMLParser):
    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted = wanted
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == self.wanted:
            self.found.append(dict(attributes))


def elements(response: Any, tag: str) -> list[dict[str, str | None]]:
    """The attributes of each element of this name, in the page's order."""
    parser = _Elements(tag)
    parser.feed(html(response))
    return parser.found


def steady(response: Any) -> str:
    """The page as text without what the clock changes."""
    return re.sub(r"\d+ (ms|s)\b|\d+:\d+:\d+", "", words(response))


def link(response: Any, rel: str) -> str | None:
    """Where the link with this rel leads."""
    return next((a["href"] for a in elements(response, "a") if a.get("rel") == rel), None)


def task_ids(response: Any) -> list[str]:
    """The tasks that the page links to, in its order."""
    found = (
        re.fullmatch(r"/tasks/([0-9a-f-]{36})/", a["href"] or "") for a in elements(response, "a")
    )
    return [match[1] for match in found if match]


def message(response: HttpResponseBase) -> str:
    """What the reader was told after an act."""
    return " ".join(strip_tags(str(told)) for told in response.context["messages"])  # type: ignore[attr-defined]


def fill(sql: Callable[..., Any], status: str, count: int, **columns: str) -> None:
    """Insert many tasks of a status in one statement; three in a row share their timestamps.

    columns: further columns as SQL expressions over n, the row's number.
    """
    moment = "now() - (n / 3) * interval '1 second'"
    implied = {"type": "'test'", "status": f"'{status}'"}
    if status == "blocked":
        implied["waits_on"] = "1"
    if status == "scheduled":
        implied["run_at"] = f"{moment} + interval '1 hour'"
    if status in ("processing", "completed", "failed"):
        sql(
            "INSERT INTO workers (id, kind, heartbeat_at) VALUES ('w1', 'process', now()) "
            "ON CONFLICT DO NOTHING"
        )
        implied |= {"worker_id": "'w1'", "lease": "1", "attempts": "1", "started_at": moment}
    if status in ("completed", "failed", "cancelled"):
        implied["completed_at"] = moment
    implied |= columns
    sql(
        f"INSERT INTO tasks ({', '.join(implied)}) "
        f"SELECT {', '.join(implied.values())} FROM generate_series(1, {count}) n"
    )
