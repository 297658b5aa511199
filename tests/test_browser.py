"""The console in a real browser, beside a real worker."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from queues import operations
from queues.enqueue import enqueue
from queues.models import Operation, Queue, Task
from tests.browser import brightness, one_browser, tab_to, too_wide, windows  # noqa: F401
from tests.conftest import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

LONG = "an_unbroken_name_" * 11


def log_in(page, name):
    page.goto("/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill("pw")
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize(
    ("scheme", "scripts"),
    [("light", True), ("dark", True), ("light", False), ("dark", False)],
    ids=["light", "dark", "light without scripts", "dark without scripts"],
)
def test_a_failed_task_is_found_retried_and_seen_to_complete(
    open_browser, user_in, make_task, run_worker, scheme, scripts
):
    user_in("operator")
    task = make_task("failed", type="echo", payload={"order": "A-17"})
    run_worker().started()
    page = open_browser(color_scheme=scheme, java_script_enabled=scripts)

    log_in(page, "operator")
    expect(page.get_by_role("heading", level=1)).to_contain_text("1 thing needs you")
    page.get_by_role("link", name="Look at them").click()
    page.get_by_role("table").get_by_role("link", name="echo").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
    expect(page.get_by_text("A-17")).to_be_visible()
    if scripts:
        assert (brightness(page) > 128) == (scheme == "light")

    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("1 task retried")).to_be_visible()
    if scripts:
        page.evaluate("window.kept = true")
        expect(page.get_by_role("heading", level=1)).to_contain_text("completed", timeout=20_000)
        assert page.evaluate("window.kept"), "the page was reloaded"
    else:
        eventually(lambda: Task.objects.get(pk=task.pk).status == "completed")
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_contain_text("completed")
    page.get_by_role("link", name="Overview").click()
    if not scripts:
        eventually(lambda: page.reload() and page.get_by_text("All healthy").count())
    expect(page.get_by_role("heading", level=1)).to_contain_text("All healthy")
    assert Operation.objects.get().actor == "operator"


def test_a_task_that_is_retried_by_its_worker_is_followed_live(open_browser, client_of, run_worker):
    made = enqueue("retry_soon")
    page = open_browser(client_of("viewer"))
    page.goto(f"/tasks/{made.id}/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("pending")
    page.evaluate("window.kept = true")
    run_worker()
    expect(page.get_by_role("heading", level=1)).to_contain_text("completed", timeout=30_000)
    expect(page.get_by_text("Completed in")).to_contain_text("at attempt 3")
    assert page.evaluate("window.kept"), "the page was reloaded"


def test_a_page_of_tasks_is_selected_confirmed_and_cancelled(open_browser, client_of, make_task):
    tasks = [make_task(type="mail") for _ in range(3)]
    page = open_browser(client_of("operator"))
    page.goto("/tasks/?status=pending")
    page.get_by_label("Select page").check()
    expect(page.get_by_text("3 selected")).to_be_visible()
    page.get_by_label(re.compile("Select mail")).first.uncheck()
    expect(page.get_by_text("2 selected")).to_be_visible()
    assert page.get_by_label("Select page").evaluate("box => box.indeterminate")
    page.get_by_role("button", name="Cancel selected").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 tasks?")
    assert Task.objects.filter(status="pending").count() == 3
    page.get_by_role("link", name=re.compile("change nothing")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    page.get_by_label("Select page").check()
    page.get_by_role("button", name="Cancel selected").click()
    page.get_by_label(re.compile("Reason")).fill("sent twice")
    page.get_by_role("button", name="Cancel 3 tasks").click()

    expect(page.get_by_text("3 tasks cancelled")).to_be_visible()
    expect(page.get_by_text("No task matches")).to_be_visible()
    page.get_by_role("link", name="What was done").click()
    expect(page.get_by_text("sent twice")).to_be_visible()
    assert Task.objects.filter(status="cancelled").count() == len(tasks)


def test_filters_change_the_list_and_the_address_without_a_reload(
    open_browser, client_of, make_task
):
    make_task("failed", type="mail")
    make_task("completed", type="print")
    page = open_browser(client_of("viewer"))
    page.goto("/tasks/")
    page.evaluate("window.kept = true")
    page.get_by_role("combobox", name="Status").select_option("failed")
    expect(page.get_by_text("1 task matches")).to_be_visible()
    expect(page).to_have_url(re.compile("status=failed"))
    expect(page.get_by_role("link", name="print")).to_have_count(0)
    assert page.evaluate("window.kept"), "the page was reloaded"
    page.go_back()
    expect(page.get_by_text("2 tasks")).to_be_visible()
    expect(page.get_by_role("navigation", name="Console")).to_be_visible()


def test_the_keyboard_alone_is_enough(open_browser, client_of, make_task):
    task = make_task("failed", type="mail")
    page = open_browser(client_of("operator"))
    page.goto("/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to main content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    tab_to(page, page.get_by_role("navigation", name="Console").get_by_role("link", name="Tasks"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")

    tab_to(page, page.get_by_label(re.compile("Select mail")))
    page.keyboard.press("Space")
    expect(page.get_by_text("1 selected")).to_be_visible()
    tab_to(page, page.get_by_role("button", name="Retry selected"), back=True)
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 task retried")).to_be_visible()
    assert Task.objects.get(pk=task.pk).status == "pending"


@pytest.fixture
def long_rows(make_task, make_worker):
    """Rows on every page, with names as long as they may be; gives the pages' addresses."""
    queue = Queue.objects.create(name=LONG[:60])
    fields = {"type": LONG, "queue_id": queue.name, "worker_id": LONG}
    error = f"ValueError: {LONG * 3}"
    make_worker(LONG, host=LONG, queues=[queue.name, "default"], concurrency=12, pid=4_000_000)
    make_worker("left", status="gone")
    make_task("processing", **fields, progress=40, progress_note=LONG)
    stuck = make_task("processing", **fields | {"worker_id": "left"})
    make_task("pending", queue_id=queue.name, type=LONG, run_at=timezone.now() - timedelta(days=3))
    make_task("scheduled", type=LONG, error=f"No handler for the type {LONG!r}")
    failed = make_task(
        "failed",
        **fields,
        error=error,
        error_fingerprint=error,
        payload={"key": LONG * 4},
        tenant_id=LONG,
        dedupe_key=LONG,
        correlation_id=LONG,
        errors=[
            {
                "attempt": 1,
                "at": "2026-01-01T10:00:00+00:00",
                "worker": LONG,
                "class": "ValueError",
                "message": LONG * 3,
                "traceback": f'File "{LONG}", line 1\n    {LONG * 3}',
            }
        ],
    )
    make_task("pending", correlation_id=LONG, type=LONG)
    enqueue(LONG, after=[failed.id])
    made = operations.retry([failed.id, stuck.id], actor=LONG[:150], reason=LONG * 3)
    operations.cancel([failed.id], actor="a", reason=LONG)
    return [
        "/",
        "/tasks/",
        "/tasks/?status=failed&type=nothing",
        "/tasks/?status=lost&id=5",
        f"/tasks/{failed.id}/",
        f"/tasks/{stuck.id}/",
        "/stuck/",
        "/workers/",
        "/workers/?all=1",
        "/operations/",
        f"/operations/{made.id}/",
    ]


ADMIN = ["/admin/", "/admin/queue/task/", "/admin/queue/queue/", "/admin/auth/user/"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_an_error_on_a_desk(open_browser, client_of, long_rows, scheme):
    page = open_browser(client_of("admin"), color_scheme=scheme)
    for url in long_rows + ADMIN:
        page.goto(url)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        assert too_wide(page) == [], url


def test_no_page_scrolls_sideways_on_a_phone(open_browser, client_of, long_rows):
    page = open_browser(
        client_of("operator"), viewport={"width": 390, "height": 844}, has_touch=True
    )
    wide = {}
    for url in long_rows:
        page.goto(url)
        if found := too_wide(page):
            wide[url] = found
    page.goto("/tasks/?status=pending")
    page.get_by_label("Select page").check()
    page.get_by_role("button", name="Cancel selected").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancel 2 tasks?")
    if found := too_wide(page):
        wide["confirmation"] = found
    assert wide == {}


def polls(page):
    """The list to which each request for a fragment is added."""
    seen = []
    page.on("request", lambda sent: "hx-request" in sent.headers and seen.append(sent.url))
    return seen


def test_the_overview_follows_what_happens(open_browser, client_of, make_task, make_worker):
    make_worker()
    page = open_browser(client_of("viewer"))
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("All healthy")
    make_task("failed")
    expect(page.get_by_role("heading", level=1)).to_contain_text("1 thing needs you")


def test_a_live_part_holds_still_while_a_box_in_it_is_ticked(open_browser, client_of, make_task):
    make_task()
    page = open_browser(client_of("viewer"))
    page.clock.install()
    page.goto("/")
    seen = polls(page)
    page.evaluate(
        """() => document.querySelector("[data-refresh]").insertAdjacentHTML(
             "afterbegin", "<label><input type=checkbox> hold</label>")"""
    )
    page.get_by_label("hold").check()
    page.clock.run_for(60_000)
    assert seen == []
    expect(page.get_by_label("hold")).to_be_checked()
    page.get_by_label("hold").uncheck()
    page.clock.run_for(4_000)
    expect(page.get_by_label("hold")).to_have_count(0)
    assert seen != []


def test_a_live_part_rests_when_nothing_more_can_happen(open_browser, client_of, make_task):
    task = make_task()
    page = open_browser(client_of("viewer"))
    page.clock.install()
    page.goto(f"/tasks/{task.id}/")
    operations.cancel([task.id], actor="a")
    page.clock.run_for(3_000)
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    seen = polls(page)
    page.clock.run_for(60_000)
    assert seen == []


def test_a_hidden_page_asks_for_nothing(open_browser, client_of):
    page = open_browser(client_of("viewer"))
    page.clock.install()
    page.goto("/")
    seen = polls(page)
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden'})")
    page.clock.run_for(60_000)
    assert seen == []


def test_a_live_part_holds_still_while_its_text_is_selected(open_browser, client_of, make_task):
    task = make_task(payload={"order": "A-17"})
    page = open_browser(client_of("viewer"))
    page.clock.install()
    page.goto(f"/tasks/{task.id}/")
    seen = polls(page)
    page.get_by_text("A-17").evaluate("e => getSelection().selectAllChildren(e)")
    page.clock.run_for(60_000)
    assert seen == []
    page.evaluate("getSelection().removeAllRanges()")
    with page.expect_response(lambda got: "hx-request" in got.request.headers):
        page.clock.run_for(3_000)


def test_moments_are_told_in_the_readers_zone(open_browser, client_of, make_task):
    moment = timezone.datetime(2026, 1, 1, 20, 30, tzinfo=timezone.get_fixed_timezone(0))
    task = make_task("completed", created_at=moment)
    page = open_browser(client_of("viewer"), timezone_id="Asia/Kolkata", locale="en-GB")
    page.goto(f"/tasks/{task.id}/")
    told = page.locator("time[datetime^='2026-01-01T20:30'][data-moment]").first
    expect(told).to_have_text(re.compile(r"2 Jan 2026.*0?2:00:00"))
    expect(told).to_have_attribute("title", "2026-01-01 20:30:00 UTC")
