"""Who may see and do what in the console, and what every page has in common."""

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from queues import operations
from queues.console import story, views
from queues.models import Operation, Task
from tests.console import HTMX, elements, fill, html, steady, words

pytestmark = pytest.mark.django_db

PAGES = ["overview", "tasks", "task", "stuck", "workers", "operations", "operation"]
LISTS = ["overview", "tasks", "stuck", "workers", "operations"]
STAFF = ["viewer", "operator", "payments", "admin"]
VERBS = {"retry": "failed", "requeue": "scheduled", "cancel": "pending"}


@pytest.fixture
def files(monkeypatch):
    storage = InMemoryStorage()
    monkeypatch.setattr(views, "default_storage", storage)
    return storage


@pytest.fixture
def url_of(make_task, files):
    """The address of a page by name; those of one row get a row."""

    def find(name):
        if name in ("task", "output"):
            files.save("exports/a.csv", ContentFile(b"a,b\n"))
            return reverse(f"queue:{name}", args=[make_task(output_location="exports/a.csv").id])
        if name == "operation":
            made = operations.cancel([make_task().id], actor="someone")
            return reverse("queue:operation", args=[made.id])
        return reverse(f"queue:{name}")

    return find


@pytest.fixture
def reader(client_of):
    """A client of a role: a group's, nobody's, or that of a user who is in no group."""

    def make(role):
        if role in STAFF:
            return client_of(role)
        client = Client()
        if role != "anonymous":
            client.force_login(User.objects.create_user(role, is_staff=role == "staff in no group"))
        return client

    return make


def answer(response):
    """The status, and for a redirect to the login its name."""
    if response.status_code == 302 and response.url.startswith(reverse(settings.LOGIN_URL)):
        return "login"
    if hasattr(response, "streaming_content"):
        b"".join(response.streaming_content)
        response.close()
    return response.status_code


@pytest.mark.parametrize("name", [*PAGES, "output"])
@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("anonymous", "login"),
        ("customer", 403),
        ("staff in no group", 403),
        *((group, 200) for group in STAFF),
    ],
)
def test_pages_are_for_staff_of_a_group(reader, url_of, name, role, expected):
    url, client = url_of(name), reader(role)
    assert answer(client.get(url)) == expected
    assert client.post(url).status_code == 405


def test_the_login_leads_back_to_the_page_that_was_asked_for(url_of, user_in):
    user_in("viewer")
    response = Client().get("/tasks/?status=failed", follow=True)
    [login] = [f for f in elements(response, "form") if f.get("id") == "login-form"]
    credentials = {"username": "viewer", "password": "pw", "next": "/tasks/?status=failed"}
    entered = Client().post(login["action"] or response.request["PATH_INFO"], credentials)
    assert entered.url == "/tasks/?status=failed"


def test_a_live_part_of_someone_logged_out_reloads_the_whole_page():
    response = Client().get("/", **HTMX)
    assert (response.status_code, response["HX-Refresh"], response.content) == (204, "true", b"")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("anonymous", "login"),
        ("customer", 403),
        ("staff in no group", 403),
        ("viewer", 403),
        ("payments", 403),
        ("operator", 302),
        ("admin", 302),
    ],
)
def test_each_verb_needs_its_permission(reader, make_task, verb, role, expected):
    task, client = make_task(VERBS[verb]), reader(role)
    before = Task.objects.filter(pk=task.pk).values().get()
    asked = {"verb": verb, "task": str(task.id), "confirmed": "1"}
    assert client.get("/tasks/act/", asked).status_code == 405
    assert answer(client.post("/tasks/act/", asked)) == expected
    unchanged = Task.objects.filter(pk=task.pk).values().get() == before
    assert unchanged == (expected != 302)
    assert Operation.objects.count() == (expected == 302)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["/tasks/", "/tasks/{}/"])
def test_only_those_who_may_act_see_the_buttons(client_of, make_task, verb, place):
    task = make_task(VERBS[verb])

    def buttons(group):
        found = elements(client_of(group).get(place.format(task.id)), "button")
        return {button["value"] for button in found if button.get("name") == "verb"}

    assert verb in buttons("operator")
    assert buttons("viewer") == set()


def test_a_forged_act_is_refused(user_in, make_task):
    client = Client(enforce_csrf_checks=True)
    client.force_login(user_in("operator"))
    task = make_task("failed")
    asked = {"verb": "retry", "task": str(task.id)}
    assert client.post("/tasks/act/", asked).status_code == 403
    assert Task.objects.get(pk=task.pk).status == "failed"
    page = client.get(f"/tasks/{task.id}/")
    token = next(i["value"] for i in elements(page, "input") if i["name"] == "csrfmiddlewaretoken")
    assert client.post("/tasks/act/", asked | {"csrfmiddlewaretoken": token}).status_code == 302
    assert Task.objects.get(pk=task.pk).status == "pending"


@pytest.mark.parametrize("name", PAGES)
def test_htmx_gets_the_fragment_alone(client_of, url_of, name):
    client, url = client_of("operator"), url_of(name)
    whole, fragment = client.get(url), client.get(url, **HTMX)
    restored = client.get(url, **HTMX, HTTP_HX_HISTORY_RESTORE_REQUEST="true")
    assert "<html" in html(whole)
    assert "<html" in html(restored)
    assert "<html" not in html(fragment)
    assert steady(fragment) in steady(whole)
    for response in (whole, fragment, restored):
        assert "HX-Request" in response["Vary"]
        assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("overview", "All healthy Nothing waits. No worker is running"),
        ("tasks", "No task yet"),
        ("stuck", "No stuck tasks No worker has swept yet."),
        ("workers", "No worker is running"),
        ("operations", "Nobody has done anything yet"),
    ],
)
def test_an_empty_page_states_a_fact(client_of, name, fact):
    assert fact in words(client_of("viewer").get(reverse(f"queue:{name}")))


@pytest.mark.parametrize("name", LISTS)
def test_many_rows_cost_as_many_queries_as_one_and_no_offset(client_of, make_task, sql, name):
    def grow(count):
        fill(sql, "processing", count)
        fill(sql, "failed", count)
        sql(
            "INSERT INTO workers (id, kind) "
            "SELECT 'p' || gen_random_uuid(), 'process' FROM generate_series(1, %s)",
            count,
        )
        sql("UPDATE tasks SET worker_id = 'lost' WHERE status = 'processing'")
        for _ in range(min(count, 60)):
            Operation.objects.create(verb="retry", actor="a", requested=0, done=0, skipped=0)
        cache.clear()

    def look():
        with CaptureQueriesContext(connection) as captured:
            response = client.get(reverse(f"queue:{name}"))
        assert response.status_code == 200
        return [query["sql"] for query in captured], words(response)

    client = client_of("operator")
    look()
    grow(1)
    few, with_few = look()
    grow(300)
    many, with_many = look()
    assert len(many) == len(few)
    assert not [statement for statement in many if " OFFSET " in statement.upper()]
    assert with_many != with_few


@pytest.mark.parametrize(
    ("url", "place", "name"),
    [
        ("/", views, "snapshot"),
        ("/tasks/", views, "page_of"),
        ("task", story, "of"),
        ("/stuck/", views, "snapshot"),
    ],
)
def test_a_query_that_takes_too_long_ends_in_a_page_that_says_so(
    client_of, make_task, monkeypatch, settings, url, place, name
):
    def slow(*_args):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    url = f"/tasks/{make_task().id}/" if url == "task" else url
    client = client_of("viewer")
    settings.CONSOLE_STATEMENT_TIMEOUT_SECONDS = 0.05
    with monkeypatch.context() as patch:
        patch.setattr(place, name, slow)
        response = client.get(url)
    assert response.status_code == 503
    assert "This page took longer than 0.05 seconds" in words(response)
    assert any(a["href"] == url for a in elements(response, "a"))
    settings.CONSOLE_STATEMENT_TIMEOUT_SECONDS = 5
    assert client.get(url).status_code == 200


def test_another_trouble_of_the_database_is_not_called_slow(client_of, monkeypatch):
    def broken():
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(views, "snapshot", broken)
    page = client_of("viewer").get("/")
    assert (page.status_code, page["Retry-After"]) == (503, "10")
    assert "The database does not answer" in page.content.decode()


@pytest.mark.parametrize(
    "url",
    [
        "/tasks/0190b2f0-0000-7000-8000-000000000000/",
        "/tasks/no-id/",
        "/operations/0190b2f0-0000-7000-8000-000000000000/",
        "/operations/?before=x%00",
    ],
)
def test_what_does_not_exist_is_a_page_with_a_way_on(client_of, url):
    response = client_of("viewer").get(url)
    assert response.status_code == 404
    assert "There is nothing here" in words(response)
    assert any(a["href"] == "/" for a in elements(response, "a"))
