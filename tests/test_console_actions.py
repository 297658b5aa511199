"""What the buttons do: ask where it matters, act on what is legal, and say what happened."""

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from queues import operations
from queues.console.verbs import VERBS
from queues.enqueue import enqueue
from queues.models import Operation, Queue, Task
from tests.console import elements, fill, html, message, task_ids, words

pytestmark = pytest.mark.django_db


@pytest.fixture
def act(client_of):
    """Press a button as an operator, and follow to where that leads."""
    client = client_of("operator")

    def press(verb, *tasks, **fields):
        asked = {"verb": verb, "task": [str(getattr(task, "id", task)) for task in tasks]}
        return client.post("/tasks/act/", asked | fields, follow=True)

    return press


def status_of(task):
    return Task.objects.get(pk=task.id).status


def form_of(page):
    """What the confirmation's form would send."""
    sent = {"task": []}
    for field in elements(page, "input"):
        if field.get("type") == "number":
            sent[field["name"]] = field["value"]
        if field.get("type") == "hidden" and field["name"] != "csrfmiddlewaretoken":
            if field["name"] == "task":
                sent["task"].append(field["value"])
            else:
                sent[field["name"]] = field["value"]
    return sent


@pytest.mark.parametrize(
    ("verb", "before", "after", "said"),
    [
        ("retry", "failed", "pending", "retried"),
        ("retry", "cancelled", "pending", "retried"),
        ("requeue", "scheduled", "pending", "requeued"),
        ("cancel", "pending", "cancelled", "cancelled"),
        ("cancel", "blocked", "cancelled", "cancelled"),
        ("cancel", "processing", "cancelled", "cancelled"),
        ("release", "processing", "pending", "released"),
    ],
)
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_verb_acts_and_says_how_many(act, make_task, verb, before, after, said, many):
    tasks = [make_task(before) for _ in range(3 if many else 1)]
    page = act(verb, *tasks, confirmed="1", reason="the bank is back")
    assert {status_of(task) for task in tasks} == {after}
    assert message(page).startswith(f"{'3 tasks' if many else '1 task'} {said}. ")
    made = Operation.objects.get()
    assert (made.verb, made.actor, made.reason) == (verb, "operator", "the bank is back")
    assert (made.done, made.skipped) == (len(tasks), 0)
    assert f"/operations/{made.id}/" in [a["href"] for a in elements(page, "a")]


def test_what_is_not_legal_is_left_alone_and_listed_with_its_reason(act, client_of, make_task):
    failed, running, missing = make_task("failed"), make_task("processing"), uuid4()
    page = act("retry", failed, running, missing)
    assert "1 task retried, 2 left alone (" in message(page)
    made = Operation.objects.get()
    shown = client_of("viewer").get(f"/operations/{made.id}/")
    text = words(shown)
    assert "1 of 3 done, 2 left alone" in text
    assert f"{running.id} processing it is processing, not failed or cancelled" in text
    assert f"{missing} it does not exist" in text
    assert f"{failed.id} failed pending" in text
    assert {str(failed.id), str(running.id)} <= set(task_ids(shown))


def test_nothing_done_is_said_as_a_warning(act, make_task):
    page = act("retry", make_task("completed"))
    assert message(page).startswith("0 tasks retried, 1 left alone (it is completed,")
    assert [told.level_tag for told in page.context["messages"]] == ["warning"]


@pytest.mark.parametrize(
    ("verb", "status", "count", "fields", "title"),
    [
        ("cancel", "pending", 1, {}, "Cancel 1 task?"),
        ("cancel", "processing", 2, {}, "Cancel 2 tasks?"),
        ("requeue", "processing", 1, {"force": "1"}, "Requeue 1 task?"),
        ("release", "processing", 1, {}, "Release 1 task?"),
        ("retry", "failed", 21, {}, "Retry 21 tasks?"),
        ("requeue", "scheduled", 21, {}, "Requeue 21 tasks?"),
    ],
)
def test_a_grave_act_shows_its_rows_and_waits_for_the_word(
    act, sql, verb, status, count, fields, title
):
    fill(sql, status, count)
    ids = {str(id) for id in Task.objects.values_list("id", flat=True)}
    page = act(verb, *ids, **fields)
    assert title in words(page)
    assert set(task_ids(page)) == ids
    assert set(Task.objects.values_list("status", flat=True)) == {status}
    assert not Operation.objects.exists()

    fill(sql, status, 3)
    act(reason="the word", **form_of(page))
    made = Operation.objects.get()
    assert (made.done, made.skipped, made.reason) == (count, 0, "the word")
    assert {str(id) for id in made.items.values_list("task_id", flat=True)} == ids
    assert Task.objects.filter(status=status).count() == 3


def test_up_to_twenty_retries_need_no_word(act, sql):
    fill(sql, "failed", 20)
    act("retry", *Task.objects.values_list("id", flat=True))
    assert Operation.objects.get().done == 20


def test_the_confirmation_tells_of_running_and_vanished_tasks(act, make_task):
    page = act("cancel", make_task(), make_task("processing"), uuid4())
    text = words(page)
    assert "1 of them is running" in text
    assert "1 more no longer exists." in text


@pytest.mark.parametrize("reason", ["", "   "])
def test_taking_a_task_from_a_living_worker_needs_a_reason(act, make_task, reason):
    task = make_task("processing")
    page = act("requeue", f"{task.id}:1", force="1", confirmed="1", reason=reason)
    assert message(page) == "Taking a task from a living worker needs a reason."
    assert status_of(task) == "processing"
    act("requeue", f"{task.id}:1", force="1", confirmed="1", reason="it hangs")
    assert status_of(task) == "pending"


def test_without_force_a_living_worker_keeps_its_task(act, make_task):
    task = make_task("processing")
    page = act("requeue", f"{task.id}:1")
    assert "its worker is alive and its timeout has not passed" in message(page)
    assert status_of(task) == "processing"


def test_a_task_that_was_claimed_since_it_was_seen_is_left_alone(act, make_task, make_worker):
    make_worker("dead", status="gone")
    task = make_task("processing", worker_id="dead", lease=2)
    page = act("requeue", f"{task.id}:1")
    assert "it was claimed again since you looked" in message(page)
    assert status_of(task) == "processing"
    act("requeue", f"{task.id}:2")
    assert status_of(task) == "pending"


def test_a_priority_is_asked_for_and_set(act, make_task):
    task = make_task(priority=3)
    page = act("set_priority", task)
    assert "Set the priority of 1 task?" in words(page)
    form = form_of(page)
    assert form["priority"] == "3"
    page = act(**form | {"priority": "50"})
    assert message(page).startswith("1 task reprioritised. ")
    assert Task.objects.get().priority == 50


def test_a_queue_is_asked_for_and_the_task_moved(act, make_task):
    Queue.objects.create(name="gpu2")
    task = make_task()
    page = act("move", task)
    assert {"default", "gpu2"} <= set(re.findall(r"<option>([^<]+)</option>", html(page)))
    page = act(**form_of(page) | {"queue": "gpu2"})
    assert message(page).startswith("1 task moved. ")
    assert Task.objects.get().queue_id == "gpu2"


def test_a_completed_task_is_run_again_as_a_new_one(act, make_task):
    task = make_task("completed")
    page = act("run_again", task)
    assert "happens again" in words(page)
    page = act(**form_of(page))
    assert message(page).startswith("1 task run again. ")
    new = Task.objects.get(status="pending")
    shown = act("retry", task).client.get(f"/operations/{Operation.objects.earliest('id').id}/")
    assert str(new.id) in task_ids(shown)


@pytest.mark.parametrize(
    ("verb", "fields", "sentence"),
    [
        ("set_priority", {"priority": "101"}, "A priority is a whole number from -100 to 100."),
        ("set_priority", {"priority": "high"}, "A priority is a whole number from -100 to 100."),
        ("set_priority", {}, "A priority is a whole number from -100 to 100."),
        ("move", {"queue": "nowhere"}, 'queue "nowhere" does not exist'),
        ("move", {}, 'queue "" does not exist'),
        ("release", {"reason": " "}, "Releasing a task that a worker holds needs a reason."),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_a_sentence(act, make_task, verb, fields, sentence):
    task = make_task("processing" if verb == "release" else "pending")
    assert sentence in message(act(verb, task, confirmed="1", **fields))
    was = task.status
    task.refresh_from_db()
    assert (task.status, task.priority, task.queue_id) == (was, 0, "default")
    assert not Operation.objects.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_needs_its_own_permission(client_of, user_in, make_task, verb):
    task = make_task(VERBS[verb].legal[0])
    sent = {"verb": verb, "task": str(task.id), "confirmed": "1", "priority": "1", "reason": "r"}
    sent["queue"] = "default"
    assert client_of("viewer").post("/tasks/act/", sent).status_code == 403
    assert not Operation.objects.exists()
    user = user_in("payments")
    app, codename = VERBS[verb].permission.split(".")
    user.user_permissions.add(
        Permission.objects.get(content_type__app_label=app, codename=codename)
    )
    client = client_of("payments")
    assert client.post("/tasks/act/", sent).status_code == 302
    assert Operation.objects.count() == 1
    others = {name for name in VERBS if VERBS[name].permission != VERBS[verb].permission}
    refused = {
        name: client.post("/tasks/act/", sent | {"verb": name}).status_code for name in others
    }
    assert set(refused.values()) == {403}


@pytest.mark.parametrize("group", ["operator", "admin"])
def test_operators_may_use_every_verb(user_in, group):
    user = user_in(group)
    assert [verb for verb in VERBS.values() if not user.has_perm(verb.permission)] == []


def test_the_list_offers_what_its_filter_makes_sensible(client_of, make_task):
    for status in Task.Status.values:
        make_task(status)
    client = client_of("operator")

    def buttons(query):
        page = client.get(f"/tasks/{query}")
        return {b["value"] for b in elements(page, "button") if b.get("name") == "verb"}

    assert buttons("") == {"retry", "requeue", "cancel"}
    assert buttons("?status=pending") == {"set_priority", "move", "cancel"}
    assert buttons("?status=processing") == {"requeue", "release", "cancel"}
    assert buttons("?status=completed") == {"run_again"}


@pytest.mark.parametrize("dependants", [{}, {"dependants": "1"}], ids=["alone", "with dependants"])
def test_a_retry_brings_back_dependants_where_asked(act, dependants):
    first = enqueue("first")
    second = enqueue("second", after=[first.id])
    operations.cancel([first.id], actor="a")
    act("retry", f"{first.id}:0", **dependants)
    assert status_of(first) == "pending"
    assert status_of(second) == ("blocked" if dependants else "cancelled")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"verb": "delete"}, "There is no such action."),
        ({"verb": ""}, "There is no such action."),
        ({"verb": "retry_task"}, "There is no such action."),
        ({"task": "5"}, "The selection holds something that is no task."),
        ({"task": "\x00"}, "The selection holds something that is no task."),
        ({"task": f"{uuid4()}:x"}, "The selection holds something that is no task."),
    ],
)
def test_a_request_that_no_form_makes_is_refused(act, make_task, fields, sentence):
    task = make_task("failed")
    response = act(**{"verb": "retry", "task": str(task.id)} | fields)
    assert (response.status_code, response.content.decode()) == (400, sentence)
    assert status_of(task) == "failed"


def test_a_lease_that_cannot_be_is_refused(act, make_task):
    task = make_task("scheduled")
    assert act("requeue", f"{task.id}:{10**20}").status_code in (200, 400)
    assert status_of(task) == "scheduled"


@pytest.mark.parametrize(
    "verb",
    [
        "retry",
        "cancel",
    ],
)
def test_a_task_given_twice_is_done_once(act, make_task, verb):
    task = make_task("failed" if verb == "retry" else "pending")
    page = act(verb, f"{task.id}:0", f"{task.id}:1", str(task.id).upper(), confirmed="1")
    assert page.status_code == 200
    assert Operation.objects.get().done == 1


def test_who_must_log_in_to_act_is_led_to_a_page(user_in, make_task):
    user_in("operator")
    client, task = Client(), make_task("failed")
    asked = {"verb": "retry", "task": str(task.id), "back": f"/tasks/{task.id}/"}
    login = client.post("/tasks/act/", asked).url
    assert (
        client.post(login, {"username": "operator", "password": "pw"}, follow=True).status_code
        == 200
    )
    assert status_of(task) == "failed"


def test_nothing_selected_is_said(act):
    page = act("retry")
    assert message(page).startswith("No task was selected.")
    assert not Operation.objects.exists()


def test_too_many_at_once_are_refused_with_a_sentence(act):
    page = act("retry", *(uuid4() for _ in range(operations.MAX_TASKS + 1)))
    assert message(page) == "1,001 tasks were selected; one act takes 1,000."


@pytest.mark.parametrize(
    ("back", "leads_to"),
    [
        ("/tasks/?status=failed", "/tasks/?status=failed"),
        ("http://testserver/stuck/", "http://testserver/stuck/"),
        ("https://elsewhere.example/", "/tasks/"),
        ("//elsewhere.example/", "/tasks/"),
        ("/\\elsewhere.example/", "/tasks/"),
        ("javascript:alert(1)", "/tasks/"),
        ("", "/tasks/"),
    ],
)
@pytest.mark.parametrize("selected", [True, False])
def test_the_way_back_never_leaves_the_console(client_of, make_task, back, leads_to, selected):
    chosen = {"task": str(make_task("failed").id)} if selected else {}
    response = client_of("operator").post("/tasks/act/", {"verb": "retry", "back": back} | chosen)
    assert (response.status_code, response.url) == (302, leads_to)


def test_a_reason_is_kept_as_text_whatever_it_holds(act, client_of, make_task):
    task = make_task()
    act(
        "cancel",
        task,
        confirmed="1",
        reason="<script>alert(1)</script>\x00\N{GRINNING FACE}" + "x" * 3000,
    )
    made = Operation.objects.get()
    assert len(made.reason) == 2000
    for url in (f"/operations/{made.id}/", "/operations/", f"/tasks/{task.id}/"):
        page = client_of("viewer").get(url)
        assert "alert(1)" in words(page)
        assert "<script>alert" not in page.content.decode()


def test_a_failed_form_can_be_sent_again_without_a_second_effect(act, make_task):
    """Pressing twice: the second press finds nothing to do."""
    task = make_task("failed")
    act("retry", task)
    page = act("retry", task)
    assert "0 tasks retried, 1 left alone (it is pending," in message(page)
    assert Task.objects.get().run_at <= timezone.now() + timedelta(seconds=1)
