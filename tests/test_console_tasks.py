"""The task list: filters, keyset pages, counts."""

import base64
import json
from itertools import chain

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from queues.console import keyset
from queues.console.filters import ORDERS
from queues.console.keyset import PAGE_SIZE
from queues.models import Queue, Task
from tests.console import HTMX, elements, fill, link, task_ids, words

pytestmark = pytest.mark.django_db


@pytest.fixture
def tasks(client_of):
    """The task list as a viewer sees it."""
    client = client_of("viewer")

    def get(query="", **headers):
        response = client.get(f"/tasks/{query}", **headers)
        assert response.status_code == 200
        return response

    return get


def cursor_of(*values):
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "abcd"),
        ("?status=failed", "b"),
        ("?queue=payouts", "c"),
        ("?type=mail", "bd"),
        ("?worker=w2", "d"),
        ("?type=mail&status=failed", "b"),
        ("?type=MAIL", ""),
        ("?queue=nowhere", ""),
        ("?type=%00mail", ""),
        ("?unknown=1", "abcd"),
    ],
)
def test_filters_keep_what_matches(tasks, make_task, query, found):
    Queue.objects.create(name="payouts")
    made = {
        str(make_task("pending", type="print").id): "a",
        str(make_task("failed", type="mail").id): "b",
        str(make_task("scheduled", type="print", queue_id="payouts").id): "c",
        str(make_task("processing", type="mail", worker_id="w2").id): "d",
    }
    page = tasks(query)
    assert "".join(sorted(made[id] for id in task_ids(page))) == found
    text = words(page)
    assert f"{len(found)} task{'' if len(found) == 1 else 's'}" in text
    assert ("No task matches" in text) == (not found)


def test_an_id_finds_its_task_alone(tasks, make_task):
    wanted, _ = make_task(), make_task()
    assert task_ids(tasks(f"?id=%20{wanted.id}%20")) == [str(wanted.id)]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?status=lost", "There is no status 'lost'; all are shown."),
        ("?status=%00", "There is no status '\\x00'; all are shown."),
        ("?id=123", "'123' is no task id; give it whole."),
        ("?id=%00", "'\\x00' is no task id; give it whole."),
    ],
)
def test_a_bad_value_is_named_in_a_sentence(tasks, make_task, query, sentence):
    task = make_task()
    page = tasks(query)
    assert sentence in words(page)
    assert task_ids(page) == [str(task.id)]


@pytest.mark.parametrize("status", ORDERS)
def test_pages_to_the_end_and_back_show_each_task_once(tasks, sql, status):
    for one in Task.Status.values if not status else [status]:
        fill(sql, one, 170 if status else 25)
    fields, descending = ORDERS[status]
    rows = Task.objects.filter(status=status) if status else Task.objects.all()
    expected = [str(id) for id in rows.order_by(*fields).values_list("id", flat=True)]
    if descending:
        expected.reverse()

    page = tasks(f"?status={status}")
    assert link(page, "prev") is None
    forth = [task_ids(page)]
    while following := link(page, "next"):
        with CaptureQueriesContext(connection) as captured:
            page = tasks(following)
        assert not [query for query in captured if " OFFSET " in query["sql"].upper()]
        forth.append(task_ids(page))
    assert list(chain.from_iterable(forth)) == expected
    assert [len(ids) for ids in forth[:-1]] == [PAGE_SIZE] * (len(forth) - 1)

    back = [task_ids(page)]
    while before := link(page, "prev"):
        page = tasks(before)
        back.insert(0, task_ids(page))
    assert back == forth


def test_a_row_deleted_between_pages_does_no_harm(tasks, sql):
    fill(sql, "failed", 120)
    first = tasks("?status=failed")
    Task.objects.filter(pk__in=[task_ids(first)[-1], task_ids(first)[3]]).delete()
    second = tasks(link(first, "next"))
    assert len(task_ids(second)) == PAGE_SIZE
    assert not set(task_ids(first)) & set(task_ids(second))
    again = tasks(link(second, "prev"))
    assert link(again, "prev") is None
    assert task_ids(again)[:48] == [id for n, id in enumerate(task_ids(first)) if n not in (3, 49)]


def test_a_last_page_that_was_emptied_leads_back_to_what_there_is(tasks, sql):
    fill(sql, "failed", PAGE_SIZE + 1)
    following = link(tasks("?status=failed"), "next")
    Task.objects.filter(pk__in=task_ids(tasks(following))).delete()
    page = tasks(following)
    assert "No task matches" not in words(page)
    assert task_ids(page) or link(page, "prev")


def test_new_rows_at_the_top_do_not_move_the_pages_below(tasks, sql):
    fill(sql, "pending", 120)
    first = tasks("?status=pending")
    second = task_ids(tasks(link(first, "next")))
    fill(sql, "pending", 7)
    assert task_ids(tasks(link(first, "next"))) == second


@pytest.mark.parametrize("status", ["", "failed"])
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "-",
        "-x",
        "%00",
        "ü",
        "a" * 5000,
        cursor_of(),
        cursor_of(1),
        cursor_of(None, None),
        cursor_of("2026-01-01", "x"),
        cursor_of({}, []),
        base64.urlsafe_b64encode(b"5").decode(),
        base64.urlsafe_b64encode(b'{"a": 1, "b": 2}').decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        pytest.param(
            base64.urlsafe_b64encode(b"[" * 2500).decode(),
            id="deep",
        ),
    ],
)
def test_a_cursor_that_cannot_be_read_gives_the_first_page(tasks, sql, status, cursor):
    fill(sql, "failed", 60)
    first = task_ids(tasks(f"?status={status}"))
    assert task_ids(tasks(f"?status={status}&cursor={cursor}")) == first


@pytest.mark.parametrize(
    "moment",
    ["2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
    ids=["without zone", "before all", "after all"],
)
def test_a_cursor_at_an_odd_moment_is_still_a_page(tasks, make_task, moment):
    task = make_task("failed")
    page = tasks(f"?status=failed&cursor={cursor_of(moment, str(task.id))}")
    assert task_ids(page) == [str(task.id)]


@pytest.mark.parametrize(("query", "scope"), [("", ""), ("?status=failed", " match")])
def test_counting_ends_at_ten_thousand_and_says_so(tasks, sql, query, scope):
    fill(sql, "failed", 10_050)
    assert f"more than 10,000 tasks{scope}" in words(tasks(query))


def test_ten_thousand_is_still_exact(tasks, sql):
    fill(sql, "failed", 10_000)
    text = words(tasks("?status=failed"))
    assert "10,000 tasks match" in text
    assert "more than" not in text


def test_an_estimate_is_marked_as_one(tasks, monkeypatch):
    monkeypatch.setattr(keyset, "estimated_total", lambda model: 1_234_567)
    assert "≈1,234,567 tasks" in words(tasks())


def test_a_page_link_keeps_the_filter(tasks, sql):
    fill(sql, "failed", 60, type="'a&b c'")
    following = link(tasks("?status=failed&type=a%26b%20c"), "next")
    assert len(task_ids(tasks(following))) == 10
    assert len(task_ids(tasks(following, **HTMX))) == 10


def test_the_form_shows_what_was_asked_for(tasks, make_task):
    make_task("failed", type="mail")
    page = tasks("?status=failed&type=mail&worker=w1&queue=default")
    fields = {i["name"]: i.get("value") for i in elements(page, "input")}
    assert (fields["type"], fields["worker"]) == ("mail", "w1")
    chosen = [
        option.get("value", "default")
        for option in elements(page, "option")
        if "selected" in option
    ]
    assert chosen == ["default", "failed"]


def test_what_a_caller_named_is_shown_as_text(tasks, make_task):
    make_task("failed", type="<script>alert(1)</script>", error='"><script>alert(2)</script>')
    page = tasks("?type=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "alert(1)" in words(page)
    assert "<script>alert" not in page.content.decode()
