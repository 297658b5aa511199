"""The overview: its verdict, and the picture that it is made of."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from payments.models import Transaction, WebhookDelivery
from queues.console import snapshot as snapshots
from queues.console import verdicts
from queues.models import Queue, Task, Worker
from tests.console import elements, fill, words

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def verdict(client_of):
    """The problems on the overview, as text before the figures."""

    def look(group="viewer"):
        cache.clear()
        response = client_of(group).get("/")
        assert response.status_code == 200
        return words(response).partition(" Waiting ")[0]

    return look


def ago(**span):
    return timezone.now() - timedelta(**span)


def test_all_healthy_while_a_worker_lives_and_nothing_is_late(verdict, make_task, make_worker):
    make_worker("w1")
    make_task("completed")
    make_task("processing")
    make_task()
    assert (
        "All healthy 1 worker alive, 1 task done in the last minute, nothing stuck, nothing late."
        in verdict()
    )


@pytest.mark.parametrize(
    ("worker", "task", "why"),
    [
        ({"status": "gone"}, {}, "its worker is gone"),
        ({}, {"started_at": timedelta(hours=2)}, "its timeout has passed"),
        (None, {"worker_id": "unheard-of"}, "its worker is unknown"),
    ],
)
def test_a_stuck_task_is_the_first_thing_to_see(
    verdict, client_of, make_task, make_worker, worker, task, why
):
    if worker is not None:
        make_worker("w1", **worker)
    if "started_at" in task:
        task = {"started_at": timezone.now() - task["started_at"]}
    stuck = make_task("processing", **task)
    if worker is None:
        Worker.objects.all().delete()
    make_task("failed")
    assert "2 things need you 1 task stuck" in verdict()
    assert why in words(client_of("viewer").get("/stuck/"))
    assert stuck.status == "processing"


@pytest.mark.parametrize(
    "worker",
    [
        None,
        {"status": "gone"},
        {"status": "draining"},
        {"queues": ["other"]},
        pytest.param(
            {"heartbeat_at": HOUR},
            id="silent for an hour",
        ),
    ],
)
def test_tasks_that_no_worker_will_take_are_told(verdict, make_task, make_worker, worker):
    if worker is not None:
        if "heartbeat_at" in worker:
            silent = timezone.now() - worker["heartbeat_at"]
            worker = {"heartbeat_at": silent, "last_seen_at": silent}
        make_worker("w1", **worker)
    make_task()
    text = verdict()
    assert "No live worker for queue default 1 task waiting" in text
    assert "manage.py runworker" in text


@pytest.mark.parametrize(
    "worker",
    [
        {},
        {"queues": ["other", "default"]},
        pytest.param({"kind": "ephemeral", "queues": ["default"]}),
        pytest.param(
            {"kind": "ephemeral", "queues": ["default"], "last_seen_at": timedelta(minutes=3)},
        ),
    ],
)
def test_tasks_that_a_worker_will_take_are_not_told(verdict, make_task, make_worker, worker):
    """A caller without heartbeat counts for five minutes after it was last seen."""
    if "last_seen_at" in worker:
        worker = worker | {"last_seen_at": timezone.now() - worker["last_seen_at"]}
    make_worker("w1", **worker)
    make_task()
    assert "All healthy" in verdict()


def test_an_empty_house_without_workers_is_healthy_and_says_how_to_start_one(verdict):
    assert "All healthy Nothing waits. No worker is running" in verdict()


def test_failures_of_the_last_day_are_told_with_the_most_frequent(verdict, make_task, make_worker):
    make_worker()
    for _ in range(2):
        make_task("failed", error_fingerprint="KeyError: 'x' @ a.py:f")
    make_task("failed", error_fingerprint="ValueError")
    make_task("failed", error_fingerprint="old", completed_at=ago(hours=25))
    text = verdict()
    assert "3 tasks failed for good in the last 24 hours" in text
    assert "Most often (2\N{MULTIPLICATION SIGN}): KeyError: 'x' @ a.py:f" in text


@pytest.mark.parametrize(
    "fields", [{"error_fingerprint": None}, {"error_fingerprint": None, "error": None}]
)
def test_a_failure_without_a_fingerprint_is_told_too(verdict, make_task, make_worker, fields):
    make_worker()
    make_task("failed", **fields)
    assert (
        f"Most often (1\N{MULTIPLICATION SIGN}): {'unknown' if 'error' in fields else 'ValueError: broken'}"
        in verdict()
    )


def test_a_failure_that_is_retried_while_the_picture_is_taken_does_no_harm(make_task):
    make_task("failed")
    torn = replace(snapshots.take_snapshot(), failures=[])
    told = verdicts.problems(torn, lambda permission: True)
    assert not [problem for problem in told if "failed for good" in problem.title]


@pytest.mark.parametrize(
    ("queue", "late", "told"),
    [
        ({}, 30, False),
        ({}, 3600, True),
        ({"paused": True}, 3600, False),
        pytest.param(
            {"paused": True, "paused_until": HOUR},
            3600,
            True,
            id="pause is over",
        ),
    ],
)
def test_a_queue_that_is_behind_is_told(verdict, make_task, make_worker, queue, late, told):
    make_worker()
    if "paused_until" in queue:
        queue = queue | {"paused_until": timezone.now() - queue["paused_until"]}
    Queue.objects.create(name="q", paused_at=timezone.now() if "paused" in queue else None, **queue)
    make_task(queue_id="q", run_at=ago(seconds=late))
    assert ("Queue q is 1 h behind" in verdict()) == told


@pytest.mark.parametrize(
    ("fields", "waiting", "told"),
    [
        (
            {"paused_at": timedelta(hours=2)},
            True,
            "Queue q is paused for 2 h 1 task waiting. the bank",
        ),
        ({"paused_at": timedelta(hours=2), "paused_reason": ""}, True, "No reason was given."),
        ({"paused_at": None}, True, "Queue q is paused 1 task waiting."),
        ({"paused_at": timedelta(minutes=5)}, True, ""),
        ({"paused_at": timedelta(hours=2)}, False, ""),
        ({"paused_at": timedelta(hours=2), "paused_until": -HOUR}, True, ""),
        ({"paused_at": timedelta(hours=2), "paused_until": HOUR}, True, ""),
    ],
)
def test_a_pause_that_was_forgotten_is_told(verdict, make_task, make_worker, fields, waiting, told):
    make_worker()
    moments = {k: timezone.now() - v if isinstance(v, timedelta) else v for k, v in fields.items()}
    Queue.objects.create(name="q", paused=True, **{"paused_reason": "the bank"} | moments)
    if waiting:
        make_task(queue_id="q")
    text = verdict()
    assert told in text
    assert ("is paused" in text) == bool(told)


def test_a_type_that_no_worker_knows_is_told(verdict, make_task):
    make_task("scheduled", type="only-there", error="No handler for the type 'only-there' here.")
    make_task("scheduled", type="fine", error="Snoozed.")
    text = verdict()
    assert "No worker has a handler for 'only-there' 1 task returned unrun." in text
    assert "'fine'" not in text


@pytest.mark.parametrize(
    "type",
    [
        "plain",
        "a&b=c +d#e",
    ],
)
def test_the_button_of_an_unknown_type_shows_its_tasks(client_of, make_task, type):
    task = make_task("scheduled", type=type, error=f"No handler for the type {type!r} here.")
    client = client_of("viewer")
    url = next(a["href"] for a in elements(client.get("/"), "a") if "&type=" in a["href"])
    assert str(task.id) in client.get(url).content.decode()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"paid_at": HOUR},
            "1 order paid but not fulfilled The oldest was paid 1 h ago. Money at risk: INR 1.00.",
        ),
        ({"paid_at": timedelta(seconds=30)}, ""),
        ({"paid_at": HOUR, "fulfilled_at": timedelta(0)}, ""),
        ({"created_at": HOUR, "status": "authorized"}, ""),
        pytest.param(
            {"created_at": HOUR, "paid_at": timedelta(0)},
            "",
            id="created long ago and paid just now",
        ),
    ],
)
def test_money_taken_with_nothing_given_is_told(verdict, fields, told):
    moments = {k: timezone.now() - v if isinstance(v, timedelta) else v for k, v in fields.items()}
    Transaction.objects.create(order_id="o1", amount=100, **{"status": "paid"} | moments)
    text = verdict("payments")
    assert told in text
    assert ("paid but not fulfilled" in text) == bool(told)


@pytest.mark.parametrize(
    ("group", "sees_money"),
    [("payments", True), ("admin", True), ("operator", False), ("viewer", False)],
)
def test_every_button_of_the_verdict_leads_where_its_reader_may_go(
    client_of, make_task, group, sees_money
):
    Queue.objects.create(name="q", paused=True)
    make_task("processing", started_at=ago(hours=3))
    make_task(queue_id="q")
    make_task("failed")
    Transaction.objects.create(order_id="o1", amount=100, status="paid", paid_at=ago(hours=1))
    client = client_of(group)
    page = client.get("/")
    assert ("1 order paid but not fulfilled" in words(page)) == sees_money
    problems = page.context["problems"]
    assert len(problems) == 3 + sees_money
    assert {client.get(problem.url).status_code for problem in problems} == {200}


def test_all_problems_are_counted_and_those_after_the_fifth_unfold(verdict, client_of, make_task):
    make_task("processing", started_at=ago(hours=3))
    Worker.objects.update(queues=["default"])
    for name in ("a", "b", "c"):
        Queue.objects.create(name=name)
        make_task(queue_id=name)
    make_task("failed")
    make_task("scheduled", type="alien", error="No handler for the type 'alien' here.")
    make_task(run_at=ago(hours=1))
    text = verdict()
    assert "7 things need you" in text
    told = ["1 task stuck", "queue a", "queue b", "queue c", "1 task failed"]
    assert sorted(told, key=text.index) == told
    first, rest = text.split("and 2 more")
    assert first.index("No live worker for queue b") > 0
    assert "alien" in rest
    assert "alien" not in first
    assert any(
        part.get("class") == "rest" for part in elements(client_of("viewer").get("/"), "details")
    )


def test_money_is_told_before_the_noise_of_tasks(verdict, make_task):
    for name in "abcdef":
        Queue.objects.create(name=name)
        make_task(queue_id=name)
    make_task("processing", started_at=ago(hours=3))
    Worker.objects.update(queues=["default"])
    Transaction.objects.create(order_id="o1", amount=100, status="paid", paid_at=ago(hours=1))
    WebhookDelivery.objects.create(provider="razorpay", verdict="mismatch", body=b"")
    text = verdict("admin").partition(" more ")[0]
    told = ["1 order paid but not fulfilled", "1 webhook contradicts", "1 task stuck", "queue a"]
    assert sorted(told, key=text.index) == told


def test_figures_and_rows_count_each_queue(client_of, make_task, make_worker):
    Queue.objects.create(name="payouts")
    make_worker("w1")
    for status in Task.Status.values:
        make_task(status, queue_id="payouts")
    page = words(client_of("viewer").get("/"))
    assert "Waiting 1" in page
    assert "Processing 1" in page
    row = page[page.index(" payouts ") :].split(" As of ")[0]
    assert " 1 1 1 1 1 1 1 min" in row


def test_counting_ends_and_says_so(client_of, sql):
    fill(sql, "pending", 10_050)
    assert "Waiting 10,000+" in words(client_of("viewer").get("/"))


def test_all_tabs_share_one_picture(client_of, monkeypatch):
    taken = []
    take = snapshots.take_snapshot
    monkeypatch.setattr(snapshots, "take_snapshot", lambda: taken.append(1) or take())
    for group in ("viewer", "operator"):
        client_of(group).get("/")
    assert len(taken) == 1
