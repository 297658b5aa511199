"""A real browser for the tests, on pages of a real server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Response,
    expect,
    sync_playwright,
)

# As long as a click waits; the machine is shared with other tests.
PATIENCE = 15_000
expect.set_options(timeout=PATIENCE)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(name="browser", scope="module")
def one_browser() -> Iterator[Browser]:
    """One Chromium for the module's tests. Without one they are skipped, or fail where it must be."""
    path = chromium()
    if path is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium")
        pytest.skip("no Chromium")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, in which Django would refuse the database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(name="open_browser")
def windows(browser: Browser, live_server: Any) -> Iterator[Callable[..., Page]]:
    """Open a window of its own, logged in as the user of `client` or not at all.

    What its pages complain of (errors of scripts, of the console, of requests) fails the test.
    """
    cache.clear()
    opened: list[BrowserContext] = []
    complaints: list[str] = []

    def open_window(client: Client | None = None, **options: Any) -> Page:
        context = browser.new_context(
            base_url=live_server.url, **{"viewport": {"width": 1280, "height": 900}} | options
        )
        context.set_default_timeout(PATIENCE)
        opened.append(context)
        if client:
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}]
            )
        page = context.new_page()

        def on_console(told: ConsoleMessage) -> None:
            if told.type in ("error", "warning"):
                complaints.append(f"{page.url}: {told.text}")

        def on_response(got: Response) -> None:
            if got.status >= 400:
                complaints.append(f"{got.status} {got.url}")

        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("console", on_console)
        page.on("response", on_response)
        return page

    yield open_window
    for context in opened:
        context.close()
    cache.clear()
    assert complaints == []


def tab_to(page: Page, wanted: Locator, *, back: bool = False) -> None:
    """Press Tab until the element has the focus; fail when it is not reached, or cannot be seen."""
    for _ in range(80):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            shown = wanted.evaluate(
                "e => { const s = getComputedStyle(e);"
                " return s.outlineStyle !== 'none' || s.boxShadow !== 'none' }"
            )
            assert shown, f"the focus cannot be seen on {wanted}"
            return
    raise AssertionError(f"the keyboard does not reach {wanted}")


def too_wide(page: Page) -> list[str]:
    """What makes the document wider than the window; nothing when it is not."""
    found: list[str] = page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= window.innerWidth) return [];
          const clipped = (e) => e && (getComputedStyle(e).overflowX !== "visible"
            || clipped(e.parentElement));
          const wide = [...document.body.querySelectorAll("*")].filter((e) =>
            e.getBoundingClientRect().right > width + 1 && !clipped(e.parentElement));
          return ["document: " + document.documentElement.scrollWidth,
                  ...wide.slice(0, 8).map((e) => e.outerHTML.slice(0, 120))];
        }"""
    )
    return found


def brightness(page: Page) -> float:
    """Of the page's ground: 0 is black, 255 white."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3
