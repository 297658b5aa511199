"""The stock admin: for every table, careful with large ones and with permissions."""

from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import CompositePrimaryKey
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from payments.models import (
    Fulfilment,
    Reconciliation,
    ReconciliationRow,
    Transaction,
    WebhookDelivery,
)
from queues.console.verbs import VERBS
from queues.models import (
    ArchivedTask,
    Endpoint,
    Operation,
    OperationItem,
    ProjectMember,
    Queue,
    Task,
    TaskDependency,
)

pytestmark = pytest.mark.django_db
# Django's admin takes no model with a composite key.
MODELS = [
    m
    for label in ("queue", "payments")
    for m in apps.get_app_config(label).get_models()
    if m._meta.managed and not isinstance(m._meta.pk, CompositePrimaryKey)
]
WRITTEN_BY_HAND = (Queue, ProjectMember, Endpoint)
TASKS = reverse("admin:queue_task_changelist")


@pytest.fixture
def one_of_each(make_task):
    task = make_task("failed", payload={"password": "hunter2"})
    child = make_task("cancelled")
    ArchivedTask.objects.create(type="old", status="completed", completed_at=timezone.now())
    TaskDependency.objects.create(task=child, predecessor_id=task.pk, outcome="cancelled")
    operation = Operation.objects.create(verb="retry", actor="a", requested=1, done=1, skipped=0)
    OperationItem.objects.create(operation=operation, task_id=task.pk, outcome="done")
    payment = Transaction.objects.create(order_id="o1", amount=100)
    Fulfilment.objects.create(order_id="o1", transaction=payment)
    run = Reconciliation.objects.create(provider="razorpay", source="provider")
    ReconciliationRow.objects.create(
        reconciliation=run, finding="missing_here", theirs={"token": "hunter2"}
    )
    ProjectMember.objects.create(project_id="p", user_id="u")
    Endpoint.objects.create(name="bubble_sync", url="https://a.example", secret="SYNC")
    WebhookDelivery.objects.create(
        provider="razorpay", verdict="accepted", body=b'{"token": "hunter2"}'
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_table_has_its_list_and_pages(client_of, one_of_each, model):
    assert admin.site.is_registered(model)
    client = client_of("admin")
    meta = model._meta
    page = client.get(reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist"))
    assert page.status_code == 200
    row = model.objects.first()
    detail = client.get(reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk]))
    assert detail.status_code == 200
    assert b"hunter2" not in page.content + detail.content


@pytest.mark.parametrize(
    "model", [m for m in MODELS if m not in WRITTEN_BY_HAND], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("what", ["add", "delete"])
def test_records_are_not_written_by_hand(client_of, one_of_each, model, what):
    args = [] if what == "add" else [model.objects.first().pk]
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{what}", args=args)
    assert client_of("admin").post(url, {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("page", "fields", "refused"),
    [
        ("projectmember", {"project_id": "p", "user_id": "u"}, {"project_id": "p", "user_id": " "}),
        (
            "endpoint",
            {"name": "bubble_sync", "url": "https://a.example/sync", "secret": "SYNC"},
            {"name": "other", "url": "ftp://a.example", "secret": "not a name"},
        ),
    ],
)
def test_members_and_endpoints_are_kept_by_admins_alone(client_of, page, fields, refused):
    url = reverse(f"admin:queue_{page}_add")
    model = apps.get_model("queue", page)
    assert client_of("operator").post(url, fields).status_code == 403
    assert client_of("admin").post(url, refused).status_code == 200
    assert not model.objects.exists()
    assert client_of("admin").post(url, fields).status_code == 302
    assert model.objects.filter(**fields).exists()


def run(client, action, *tasks):
    data = {"action": f"{action}_selected", "_selected_action": [str(task.pk) for task in tasks]}
    return client.post(TASKS, data, follow=True)


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("retry", "failed", "pending"),
        ("requeue", "scheduled", "pending"),
        ("cancel", "pending", "cancelled"),
    ],
)
def test_bulk_actions_do_what_is_legal_and_say_the_rest(
    client_of, make_task, action, before, after
):
    chosen, other = make_task(before), make_task("completed")
    client = client_of("operator")
    page = run(client, action, chosen, other)
    if action == "cancel":
        assert "Cancel 2 tasks?" in page.content.decode()
        assert not Operation.objects.exists()
        data = {"verb": "cancel", "confirmed": "1", "task": [chosen.pk, other.pk], "back": TASKS}
        page = client.post(reverse("queue:act"), data, follow=True)
        assert page.redirect_chain[-1][0] == TASKS
    assert "1 left alone" in page.content.decode()
    chosen.refresh_from_db()
    other.refresh_from_db()
    assert (chosen.status, other.status) == (after, "completed")
    operation = Operation.objects.get()
    assert (operation.verb, operation.actor) == (action, "operator")


@pytest.mark.parametrize("action", ["set_priority", "move", "release", "run_again"])
def test_other_actions_lead_to_their_confirmation(client_of, make_task, action):
    task = make_task(VERBS[action].legal[0])
    page = run(client_of("operator"), action, task)
    assert VERBS[action].title.format("1 task") in page.content.decode()
    assert not Operation.objects.exists()


@pytest.mark.parametrize("action", [name for name in VERBS if name != "rescue"])
def test_who_may_only_look_has_no_actions(client_of, make_task, action):
    task = make_task("failed" if action == "retry" else "scheduled")
    client = client_of("viewer")
    assert f"{action}_selected" not in client.get(TASKS).content.decode()
    run(client, action, task)
    task.refresh_from_db()
    assert task.status in ("failed", "scheduled")
    assert not Operation.objects.exists()


def test_an_action_on_more_than_it_takes_is_refused_whole(client_of, sql):
    sql("INSERT INTO tasks (type) SELECT 't' FROM generate_series(1, 1100)")
    data = {
        "action": "cancel_selected",
        "_selected_action": str(Task.objects.first().pk),
        "select_across": "1",
    }
    page = client_of("operator").post(TASKS, data, follow=True)
    assert "More than 1,000 tasks were selected" in page.content.decode()
    assert Task.objects.filter(status="cancelled").count() == 0


def test_a_large_table_is_counted_once_and_no_further_than_is_shown(client_of, sql):
    sql("INSERT INTO tasks (type) SELECT 't' FROM generate_series(1, 6000)")
    client = client_of("viewer")
    with CaptureQueriesContext(connection) as captured:
        page = client.get(TASKS)
    counts = [
        query["sql"] for query in captured if "COUNT(" in query["sql"] and "tasks" in query["sql"]
    ]
    assert len(counts) == 1
    assert "LIMIT 5000" in counts[0]
    assert "5000" in page.content.decode()
    deepest = client.get(TASKS + "?p=100")
    assert deepest.status_code == 200
    beyond = client.get(TASKS + "?p=500")
    assert beyond.status_code == 302


def test_search_is_by_whole_ids(client_of, make_task):
    task, other = make_task(correlation_id="trail-1"), make_task()
    client = client_of("viewer")
    for term in (str(task.pk), "trail-1"):
        page = client.get(TASKS, {"q": term}).content.decode()
        assert str(task.pk) in page
        assert str(other.pk) not in page
    assert client.get(TASKS, {"q": "nul\x00byte"}).status_code == 200


def test_a_queue_keeps_its_name_and_its_tasks(client_of, make_task):
    make_task()
    client = client_of("admin")
    url = reverse("admin:queue_queue_change", args=["default"])
    fields = {"default_timeout": "00:05:00", "default_max_attempts": 7, "max_concurrent": 3}
    fields |= {"burst": 1, "archive_after": "01:00:00", "keep_failed": "2 00:00:00"}
    page = client.post(url, fields | {"name": "other", "keep_for": "00:00:01"})
    assert "Keep for is at least a day" in page.content.decode()
    page = client.post(url, fields | {"name": "other", "keep_for": "30 00:00:00"})
    assert page.status_code == 302, page.content.decode()
    queue = Queue.objects.get(name="default")
    assert (queue.max_concurrent, queue.default_timeout) == (3, timedelta(minutes=5))
    assert (queue.archive_after, queue.keep_for) == (timedelta(hours=1), timedelta(days=30))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("payments", "it takes the tasks of payments.fulfil, "),
        ("default", "it takes the tasks of "),
        ("gpu", "code or settings name it"),
        ("busy", "there are tasks in it"),
    ],
)
def test_a_queue_that_something_goes_to_is_not_deleted(client_of, make_task, name, reason):
    Queue.objects.get_or_create(name="busy")
    make_task(queue_id="busy")
    url = reverse("admin:queue_queue_delete", args=[name])
    page = client_of("admin").post(url, {"post": "yes"}, follow=True)
    assert f"The queue {name} was not deleted: {reason}" in page.content.decode()
    assert Queue.objects.filter(name=name).exists()
    assert client_of("operator").post(url, {"post": "yes"}).status_code == 403


def test_a_queue_that_nothing_goes_to_is_deleted(client_of):
    Queue.objects.create(name="old")
    url = reverse("admin:queue_queue_delete", args=["old"])
    assert client_of("admin").post(url, {"post": "yes"}).status_code == 302
    assert not Queue.objects.filter(name="old").exists()


def test_an_operator_may_pause_and_resume_and_no_more(client_of):
    client = client_of("operator")
    url = reverse("admin:queue_queue_change", args=["default"])
    fields = {"paused": "on", "paused_reason": "provider is down", "max_concurrent": 1}
    assert client.post(url, fields | {"paused_by": "the CEO"}).status_code == 302
    queue = Queue.objects.get(name="default")
    assert (queue.paused, queue.paused_by, queue.max_concurrent) == (True, "operator", None)
    assert queue.paused_at is not None
    assert client.post(url, {}).status_code == 302
    queue.refresh_from_db()
    assert (queue.paused, queue.paused_by, queue.paused_at) == (False, "", None)
    acts = Operation.objects.order_by("id").values_list("verb", "actor", "reason")
    assert list(acts) == [
        ("pause queue default", "operator", "provider is down"),
        ("resume queue default", "operator", ""),
    ]
    assert client_of("viewer").post(url, fields).status_code == 403


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "Not A Slug"}, "begins with a letter"),
        ({"max_concurrent": 0}, "at least 1"),
        ({"default_max_attempts": 0}, "from 1 to 100"),
        ({"default_timeout": "-00:05:00"}, "at most a year"),
        ({"paused": "on", "paused_until_0": "2020-01-01", "paused_until_1": "00:00"}, "has passed"),
    ],
)
def test_a_bad_queue_is_refused_with_a_sentence(client_of, fields, sentence):
    good = {"name": "q", "default_timeout": "00:05:00", "default_max_attempts": 7}
    page = client_of("admin").post(reverse("admin:queue_queue_add"), good | fields)
    assert page.status_code == 200
    assert sentence in page.content.decode()
    assert not Queue.objects.filter(default_max_attempts=7).exists()


def test_who_manages_accounts_cannot_become_more(client_of):
    client = client_of("admin")
    root = User.objects.create_superuser("root", password="pw")
    own = User.objects.get(username="admin")
    url = reverse("admin:auth_user_change", args=[own.pk])
    fields = {"username": "admin", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    dates = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    assert client.post(url, fields | dates | {"groups": [own.groups.get().pk]}).status_code == 302
    own.refresh_from_db()
    assert not own.is_superuser
    theirs = reverse("admin:auth_user_password_change", args=[root.pk])
    client.post(theirs, {"password1": "taken-over-1", "password2": "taken-over-1"})
    root.refresh_from_db()
    assert root.check_password("pw")


def test_groups_hold_what_their_names_say(client_of):
    for group in ("viewer", "operator", "payments", "admin"):
        client = client_of(group)
        transactions = client.get(reverse("admin:payments_transaction_changelist")).status_code
        assert transactions == (200 if group in ("payments", "admin") else 403)
        accounts = client.get(reverse("admin:auth_user_changelist")).status_code
        assert accounts == (200 if group == "admin" else 403)
