"""Stuck tasks and their rescue, workers, what people did, and the health that machines ask for."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from opsconsole import health
from queues.models import Operation, Task
from tests.console import elements, fill, link, message, task_ids, words

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


def test_stuck_tasks_are_shown_with_the_evidence(client_of, make_task, make_worker):
    make_worker("dead", status="gone", heartbeat_at=timezone.now() - timedelta(hours=2))
    make_worker("caller", kind="ephemeral")
    gone = make_task(
        "processing",
        type="gone",
        worker_id="dead",
        started_at=timezone.now() - timedelta(hours=3),
    )
    late = make_task(
        "processing",
        type="late",
        worker_id="caller",
        started_at=timezone.now() - timedelta(hours=4),
        timeout=timedelta(minutes=2),
    )
    fine = make_task("processing", type="fine", worker_id="w1")
    page = client_of("viewer").get("/stuck/")
    text = words(page)
    assert task_ids(page) == [str(late.id), str(gone.id)]
    assert "gone default its worker is gone dead 2 h ago 3 h ago 10 min 1 / 5" in text
    assert "late default its timeout has passed caller never beats 4 h ago 2 min 1 / 5" in text
    assert str(fine.id) not in page.content.decode()


def test_a_rescue_gives_back_what_was_seen_and_no_more(client_of, make_task, make_worker):
    make_worker("dead", status="gone")
    seen, taken = (make_task("processing", worker_id="dead", lease=3) for _ in range(2))
    client = client_of("operator")
    page = client.get("/stuck/")
    chosen = [i["value"] for i in elements(page, "input") if i.get("name") == "task"]
    assert chosen == [f"{seen.id}:3", f"{taken.id}:3"]
    # Meanwhile another worker took one of them anew.
    Task.objects.filter(pk=taken.pk).delete()
    make_task("processing", id=taken.id, worker_id="dead", lease=4)
    after = client.post(
        "/tasks/act/", {"verb": "rescue", "task": chosen, "back": "/stuck/"}, follow=True
    )
    assert "1 task rescued, 1 left alone (it was claimed again since you looked)" in message(after)
    assert Task.objects.get(pk=seen.pk).status == "pending"
    assert task_ids(after) == [str(taken.id)]


@pytest.mark.parametrize(
    ("group", "boxes"), [("viewer", 0), ("payments", 0), ("operator", 1), ("admin", 1)]
)
def test_only_those_who_may_requeue_can_rescue(client_of, make_task, make_worker, group, boxes):
    make_worker("dead", status="gone")
    make_task("processing", worker_id="dead")
    page = client_of(group).get("/stuck/")
    assert len([i for i in elements(page, "input") if i.get("name") == "task"]) == boxes
    assert ("Rescue selected" in words(page)) == bool(boxes)


def test_at_most_200_stuck_tasks_are_listed_and_it_says_so(client_of, make_worker, sql):
    make_worker("dead", status="gone")
    fill(sql, "processing", 205, worker_id="'dead'")
    page = client_of("viewer").get("/stuck/")
    assert len(task_ids(page)) == 200
    assert "The 200 that run longest are shown." in words(page)


def test_without_stuck_tasks_the_last_sweep_is_told(client_of, make_worker):
    make_worker(swept_at=timezone.now() - timedelta(hours=5))
    assert "No stuck tasks Last sweep 5 h ago" in words(client_of("viewer").get("/stuck/"))


def test_workers_show_what_they_serve_and_hold(client_of, make_task, make_worker):
    make_worker("busy", host="db-1", pid=77, queues=["default", "mail"], concurrency=4)
    make_task("processing", worker_id="busy")
    make_worker("left", status="gone")
    make_worker("caller", kind="ephemeral")
    client = client_of("viewer")
    page = client.get("/workers/")
    text = words(page)
    assert "alive busy db-1, pid 77 default, mail 1 / 4" in text
    assert "2 more (gone, or callers without heartbeat)" in text
    assert "left" not in text
    held = next(a["href"] for a in elements(page, "a") if "worker=busy" in a["href"])
    assert len(task_ids(client.get(held))) == 1
    everyone = words(client.get("/workers/?all=1"))
    assert "gone left" in everyone
    assert "alive caller \N{EN DASH} all 0 / 1 never beats; seen" in everyone


def test_a_workers_odd_name_still_leads_to_its_tasks(client_of, make_task, make_worker):
    make_worker("a&b #<i>ü")
    task = make_task("processing", worker_id="a&b #<i>ü")
    client = client_of("viewer")
    page = client.get("/workers/")
    assert "<i>" not in page.content.decode()
    held = next(a["href"] for a in elements(page, "a") if "worker=" in a["href"])
    assert task_ids(client.get(held)) == [str(task.id)]


def test_operations_are_paged_newest_first_to_the_end(client_of):
    for n in range(120):
        Operation.objects.create(
            verb="retry", actor=f"actor-{n:03}", requested=0, done=0, skipped=0
        )
    client = client_of("viewer")
    page = client.get("/operations/")
    actors = []
    while True:
        actors += [word for word in words(page).split() if word.startswith("actor-")]
        if not (older := link(page, "next")):
            break
        page = client.get("/operations/" + older)
    assert actors == [f"actor-{n:03}" for n in reversed(range(120))]


@pytest.mark.parametrize("before", ["x", "%00", "1"])
def test_operations_before_nothing_are_not_found(client_of, before):
    assert client_of("viewer").get(f"/operations/?before={before}").status_code == 404


def test_an_operation_keeps_its_tale_when_its_tasks_are_gone(client_of, make_task):
    client = client_of("operator")
    task = make_task()
    client.post(
        "/tasks/act/", {"verb": "cancel", "task": str(task.id), "confirmed": "1", "reason": "twice"}
    )
    Task.objects.all().delete()
    text = words(client.get(f"/operations/{Operation.objects.get().id}/"))
    assert "Cancel by operator 1 of 1 done, 0 left alone" in text
    assert "twice" in text
    assert str(task.id) in text


@pytest.mark.parametrize(
    ("worker", "status"),
    [
        (None, "degraded"),
        ({}, "ok"),
        ({"status": "draining"}, "ok"),
        ({"status": "gone"}, "degraded"),
        ({"heartbeat_at": HOUR}, "degraded"),
        ({"kind": "ephemeral"}, "degraded"),
    ],
)
def test_health_is_told_to_anyone(make_worker, worker, status):
    if worker is not None:
        if "heartbeat_at" in worker:
            worker = {"heartbeat_at": timezone.now() - worker["heartbeat_at"]}
        make_worker(**worker)
    response = Client().get("/healthz")
    report = response.json()
    assert (response.status_code, report["status"]) == (200, status)
    assert (report["database"], report["migrations"]) == ("ok", "applied")
    assert report["workers"]["alive"] == (status == "ok")


def test_health_is_down_while_migrations_are_missing(monkeypatch):
    monkeypatch.setattr(health, "_migrated", lambda: False)
    response = Client().get("/healthz")
    assert (response.status_code, response.json()["status"]) == (503, "down")
    assert response.json()["migrations"] == "missing: run manage.py migrate"


def test_health_is_down_without_its_database(monkeypatch):
    class Gone:
        def cursor(self):
            raise OperationalError("password=hunter2")

    monkeypatch.setattr(health, "connection", Gone())
    response = Client().get("/healthz")
    assert response.status_code == 503
    assert response.json()["database"] == "unreachable: OperationalError"
    assert "hunter2" not in response.content.decode()
