"""Safe retry: what money tasks have settled is not done again, unless someone who may says so."""

import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.db import connections, transaction
from django.urls import reverse
from django.utils import timezone

from payments.models import Transaction
from queues import guards, operations
from queues.enqueue import enqueue
from queues.models import Operation, Task, Worker
from queues.operations import OperationError
from tests.conftest import eventually
from tests.console import elements, message, words

pytestmark = pytest.mark.django_db
MAY = frozenset({"payments.override_settled"})
TASKS = reverse("admin:queue_task_changelist")

# The status in which each verb takes a task, and the status that it leads to.
VERBS = {
    "retry": ("failed", "pending"),
    "requeue": ("scheduled", "pending"),
    "rescue": ("processing", "pending"),
    "run_again": ("completed", "completed"),
}


@pytest.fixture
def make_money(make_task):
    """A money task and its transaction."""

    def make(status="failed", type="payments.fulfil", payment=None, **fields):
        moments = {"fulfilled_at": timezone.now()} if payment is None else payment
        row = Transaction.objects.create(
            order_id=f"order_{Transaction.objects.count()}",
            amount=100,
            **{"status": "paid"} | moments,
        )
        if status == "processing":
            fields |= {"worker_id": "gone"}
        task = make_task(status, type=type, payload={"transaction_id": str(row.pk)}, **fields)
        Worker.objects.filter(pk="gone").update(status="gone")
        return task

    return make


def item(operation, task):
    found = operation.items.get(task_id=task.pk)
    return found.outcome, found.note


@pytest.mark.parametrize("verb", VERBS)
def test_a_fulfilled_order_is_not_fulfilled_again(make_money, make_task, verb):
    status, after = VERBS[verb]
    settled, other = make_money(status), make_task(status)
    Task.objects.filter(worker_id="w1", status="processing").update(
        started_at=timezone.now() - timedelta(hours=9)
    )
    made = getattr(operations, verb)([settled.pk, other.pk], actor="asha")
    assert (made.requested, made.done, made.skipped) == (2, 1, 1)
    assert item(made, settled) == ("skipped", "order order_0 was fulfilled already")
    assert made.items.get(task_id=settled.pk).before == status
    assert item(made, other)[0] == "done"
    settled.refresh_from_db()
    other.refresh_from_db()
    assert (settled.status, other.status) == (status, after)
    assert Task.objects.count() == 2 + (verb == "run_again")


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_done_anyway_by_who_may_with_a_reason(make_money, verb):
    status, after = VERBS[verb]
    task, act = make_money(status), getattr(operations, verb)
    with pytest.raises(OperationError, match="needs a reason"):
        act([task.pk], actor="asha", reason=" ", overrides=MAY)
    made = act([task.pk], actor="asha", reason="effect was lost", overrides=MAY)
    assert (made.done, made.skipped) == (1, 0)
    assert made.reason == "effect was lost (anyway, though order order_0 was fulfilled already)"
    task.refresh_from_db()
    assert task.status == after
    assert Task.objects.count() == 1 + (verb == "run_again")


def test_another_permission_sets_no_guard_aside(make_money):
    task = make_money()
    made = operations.retry([task.pk], actor="a", reason="r", overrides={"queue.retry_task"})
    assert (made.done, made.skipped) == (0, 1)
    assert made.reason == "r"


@pytest.mark.parametrize(
    ("type", "payment", "why"),
    [
        ("payments.fulfil", {}, None),
        ("payments.fulfil", {"status": "created"}, None),
        ("payments.fulfil", {"status": "partially_refunded"}, None),
        ("payments.fulfil", {"status": "refunded"}, "order order_0 was refunded"),
        ("payments.fulfil", {"status": "failed"}, "the payment of order order_0 failed"),
        ("payments.send_receipt", {}, None),
        ("payments.send_receipt", {"status": "refunded"}, "order order_0 was refunded"),
        ("payments.send_receipt", {"status": "failed"}, "the payment of order order_0 failed"),
        ("shop.ship", {"status": "refunded"}, None),
    ],
)
def test_what_is_settled_depends_on_the_money(make_money, type, payment, why):
    task = make_money(type=type, payment=payment)
    refused = guards.refusals("retry", [task.pk])
    assert {id: refusal.reason for id, refusal in refused.items()} == (
        {task.pk: why} if why else {}
    )


def test_a_receipt_that_never_went_out_can_be_retried_after_fulfilment(make_money):
    task = make_money(type="payments.send_receipt")
    assert operations.retry([task.pk], actor="a").done == 1


@pytest.mark.parametrize(("result", "refused"), [({"sent": True}, True), ({"sent": False}, False)])
def test_a_receipt_that_went_out_is_not_sent_again(make_money, make_task, result, refused):
    sent = make_money("completed", "payments.send_receipt", result=result, correlation_id="trail")
    assert bool(guards.refusals("run again", [sent.pk])) == refused
    same = make_task(
        "failed", type="payments.send_receipt", payload=sent.payload, correlation_id="trail"
    )
    why = {id: refusal.reason for id, refusal in guards.refusals("retry", [same.pk]).items()}
    assert why == ({same.pk: "the receipt of order order_0 was sent already"} if refused else {})


@pytest.mark.parametrize("payload", [[], {}, {"transaction_id": "x"}, {"transaction_id": 5}])
def test_a_task_that_names_no_transaction_is_not_guarded(make_task, payload):
    task = make_task("failed", type="payments.fulfil", payload=payload)
    assert operations.retry([task.pk], actor="a").done == 1


def test_verbs_that_run_nothing_are_not_guarded(make_money):
    task = make_money("pending")
    assert operations.cancel([task.pk], actor="a").done == 1


def test_an_archived_money_task_is_guarded_too(make_money, sql):
    task = make_money("completed", completed_at=timezone.now() - timedelta(days=40))
    sql("SELECT archive_finished(10)")
    assert not Task.objects.exists()
    made = operations.run_again([task.pk], actor="a")
    assert item(made, task) == ("skipped", "order order_0 was fulfilled already")
    assert not Task.objects.exists()


def test_dependants_that_come_back_are_guarded_too(make_money):
    first = enqueue("shop.pack")
    row = Transaction.objects.create(
        order_id="o", amount=1, status="paid", fulfilled_at=timezone.now()
    )
    money = enqueue("payments.fulfil", {"transaction_id": str(row.pk)}, after=[first.id])
    last = enqueue("shop.ship", after=[money.id])
    operations.cancel([first.id], actor="a")
    made = operations.retry([first.id], actor="a", dependants=True)
    outcomes = dict(made.items.values_list("task_id", "outcome"))
    assert outcomes == {first.id: "done", money.id: "skipped", last.id: "skipped"}
    assert Task.objects.get(pk=money.id).status == "cancelled"
    anyway = operations.retry([money.id], actor="a", reason="r", dependants=True, overrides=MAY)
    assert (anyway.done, anyway.skipped) == (2, 0)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_is_being_changed_is_not_waited_for(make_money):
    task = make_money(payment={})
    locked, release = threading.Event(), threading.Event()

    def fulfil():
        try:
            with transaction.atomic():
                Transaction.objects.select_for_update(no_key=True).get()
                locked.set()
                release.wait(60)
        finally:
            connections.close_all()

    thread = threading.Thread(target=fulfil)
    thread.start()
    try:
        assert locked.wait(60)
        made = operations.retry([task.pk], actor="a")
        assert item(made, task) == ("skipped", "its transaction is being changed at this moment")
    finally:
        release.set()
        thread.join()
    assert operations.retry([task.pk], actor="a").done == 1


@pytest.mark.django_db(transaction=True)
def test_the_judgement_holds_until_the_act_has_committed(make_money, monkeypatch):
    """A fulfilment that begins after the judgement waits for the act's commit."""
    task = make_money(payment={})
    said, waiting = operations._said, []

    def slow(sql, call, arguments):
        thread = threading.Thread(target=fulfil)
        thread.start()
        waiting.append(thread)
        eventually(blocked)
        return said(sql, call, arguments)

    def fulfil():
        try:
            Transaction.objects.update(fulfilled_at=timezone.now())
        finally:
            connections.close_all()

    def blocked():
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT FROM pg_locks WHERE NOT granted")
            return cursor.fetchall()

    monkeypatch.setattr(operations, "_said", slow)
    assert operations.retry([task.pk], actor="a").done == 1
    waiting[0].join(60)
    assert Transaction.objects.get().fulfilled_at is not None


@pytest.fixture
def act(client_of, user_in):
    """Press a button of the console as a member of some groups."""

    def press(groups, verb, *tasks, **fields):
        user = user_in(groups[0])
        user.groups.set(Group.objects.filter(name__in=groups))
        asked = {"verb": verb, "task": [str(task.pk) for task in tasks], "back": "/tasks/"}
        return client_of(groups[0]).post("/tasks/act/", asked | fields, follow=True)

    return press


@pytest.mark.parametrize(
    ("groups", "may"), [(["operator"], False), (["operator", "payments"], True), (["admin"], True)]
)
def test_the_console_shows_what_is_refused_and_to_whom_it_is_left(
    act, make_money, make_task, groups, may
):
    settled, other = make_money(), make_task("failed")
    page = act(groups, "retry", settled, other)
    text = words(page)
    assert "Retry 2 tasks?" in text
    assert "1 of them will be left alone, for the reason beside it" in text
    assert "order order_0 was fulfilled already" in text
    assert not Operation.objects.exists()
    boxes = [i for i in elements(page, "input") if i.get("name") == "override"]
    assert bool(boxes) == may
    assert not [box for box in boxes if "checked" in box]


def test_of_a_single_task_no_number_is_said(act, make_money):
    text = words(act(["admin"], "retry", make_money()))
    assert "It will be left alone, for the reason beside it, unless you ask for it below." in text
    assert "Do it anyway; say why" in text


def test_what_no_guard_refuses_is_retried_without_a_word(act, make_task):
    page = act(["operator"], "retry", make_task("failed"))
    assert message(page).startswith("1 task retried. ")


def test_a_confirmed_act_leaves_the_settled_alone(act, make_money, make_task):
    settled, other = make_money(), make_task("failed")
    page = act(["operator"], "retry", settled, other, confirmed="1")
    assert "1 task retried, 1 left alone (order order_0 was fulfilled already)" in message(page)
    settled.refresh_from_db()
    assert settled.status == "failed"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("groups", "reason", "told"),
    [
        (["operator"], "please", "1 left alone"),
        (["operator", "payments"], "the effect was lost", "1 task "),
        (["operator", "payments"], " ", "Doing it anyway needs a reason."),
        (["admin"], "the effect was lost", "1 task "),
    ],
)
def test_do_it_anyway_is_for_those_who_may_with_a_reason(
    act, make_money, verb, groups, reason, told
):
    task = make_money(VERBS[verb][0])
    page = act(groups, verb, task, confirmed="1", override="1", reason=reason)
    assert message(page).startswith(told) or told in message(page)
    done = Operation.objects.filter(done=1)
    assert done.exists() == (told == "1 task ")
    if done.exists():
        assert done.get().reason.startswith("the effect was lost (anyway, though order")


def test_the_payments_group_alone_retries_nothing(act, make_money):
    task = make_money()
    page = act(["payments"], "retry", task, confirmed="1", override="1", reason="r")
    assert page.status_code == 403
    task.refresh_from_db()
    assert task.status == "failed"


@pytest.mark.parametrize("verb", ["retry", "requeue", "run_again"])
def test_the_admins_actions_ask_before_money(client_of, make_money, verb):
    status, _ = VERBS[verb]
    task = make_money(status)
    client = client_of("operator")
    chosen = {"action": f"{verb}_selected", "_selected_action": [str(task.pk)]}
    page = client.post(TASKS, chosen, follow=True)
    assert "order order_0 was fulfilled already" in words(page)
    assert not Operation.objects.exists()
    sent = {
        "verb": verb,
        "task": str(task.pk),
        "confirmed": "1",
        "back": TASKS,
        "override": "1",
        "reason": "r",
    }
    page = client.post("/tasks/act/", sent, follow=True)
    assert "1 left alone" in message(page)
    task.refresh_from_db()
    assert task.status == status
    assert Task.objects.count() == 1
