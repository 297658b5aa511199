"""enqueue(): the one door. What is refused is refused whole, with a sentence."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from django.db import DataError, IntegrityError, transaction

from queues import claims, registry
from queues.enqueue import EnqueueError, NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, TaskDependency
from queues.registry import handles

pytestmark = pytest.mark.django_db


def test_one_line_makes_a_pending_task():
    made = enqueue("mail", {"to": "a@b.c"})
    task = Task.objects.get(pk=made.id)
    assert made.created
    assert (task.type, task.payload, task.status) == ("mail", {"to": "a@b.c"}, "pending")
    assert (task.queue_id, task.priority, task.max_attempts, task.timeout) == (
        "default",
        0,
        5,
        None,
    )


def test_every_option_reaches_its_column():
    Queue.objects.create(name="bulk", default_max_attempts=9)
    made = enqueue(
        "mail",
        [1, "ü"],
        queue="bulk",
        priority=7,
        run_at=timedelta(minutes=5),
        dedupe_key="k",
        tenant_id="acme",
        timeout=90,
        correlation_id="c",
    )
    task = Task.objects.get(pk=made.id)
    assert (task.queue_id, task.priority, task.status, task.tenant_id) == (
        "bulk",
        7,
        "scheduled",
        "acme",
    )
    assert (task.max_attempts, task.timeout, task.correlation_id) == (9, timedelta(seconds=90), "c")
    assert (
        timedelta(minutes=4, seconds=59)
        < task.run_at - task.created_at
        <= timedelta(minutes=5, seconds=1)
    )


def test_defaults_come_from_the_handler_and_give_way_to_the_caller(monkeypatch):
    monkeypatch.setattr(registry, "_handlers", dict(registry._handlers))
    Queue.objects.create(name="slow")
    handles("enqueue-defaults", queue="slow", priority=-5, max_attempts=2, timeout=30)(print)
    by_handler = Task.objects.get(pk=enqueue("enqueue-defaults").id)
    by_caller = Task.objects.get(
        pk=enqueue("enqueue-defaults", queue="default", priority=0, max_attempts=3, timeout=1).id
    )
    assert (by_handler.queue_id, by_handler.priority, by_handler.max_attempts) == ("slow", -5, 2)
    assert by_handler.timeout == timedelta(seconds=30)
    assert (by_caller.queue_id, by_caller.priority, by_caller.max_attempts) == ("default", 0, 3)
    assert by_caller.timeout == timedelta(seconds=1)


def test_a_rolled_back_transaction_enqueues_nothing():
    with pytest.raises(RuntimeError), transaction.atomic():
        enqueue("mail")
        raise RuntimeError
    assert not Task.objects.exists()


def test_a_live_dedupe_key_gives_the_task_that_holds_it():
    first = enqueue("mail", dedupe_key="k")
    assert enqueue("mail", dedupe_key="k") == (first.id, False)
    assert enqueue_many([NewTask(type="mail", dedupe_key="k")]) == [(first.id, False)]
    assert enqueue("mail", dedupe_key="k", tenant_id="other").created
    assert enqueue("sms", dedupe_key="k").created
    Task.objects.filter(pk=first.id).update(
        status="cancelled", completed_at=Task.objects.get(pk=first.id).created_at
    )
    assert enqueue("mail", dedupe_key="k").created


def test_a_dependant_waits_for_each_predecessor(make_task):
    done, one, two = make_task("completed"), make_task(), make_task()
    made = enqueue("report", after=[done.id, one.id, two.id])
    task = Task.objects.get(pk=made.id)
    assert (task.status, task.waits_on) == ("blocked", 2)
    edges = TaskDependency.objects.filter(task=task).values_list("predecessor_id", "outcome")
    assert set(edges) == {(done.id, "released"), (one.id, None), (two.id, None)}


def test_after_completed_predecessors_it_is_pending_at_once(make_task):
    assert (
        Task.objects.get(pk=enqueue("t", after=[make_task("completed").id]).id).status == "pending"
    )


def test_after_a_failed_predecessor_it_is_cancelled_visibly_or_runs(make_task):
    failed = make_task("failed").id
    cancelled = Task.objects.get(pk=enqueue("t", after=[failed]).id)
    assert cancelled.status == "cancelled"
    assert str(failed) in cancelled.error
    assert (
        Task.objects.get(pk=enqueue("t", after=[failed], on_failure="run").id).status == "pending"
    )


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]

BAD = [
    ({"type": ""}, "type must be a text"),
    ({"type": None}, "type must be a text"),
    ({"type": "t" * 201}, "201 characters"),
    ({"type": "t\x00"}, "NUL"),
    ({"type": "t", "payload": {"a": float("nan")}}, "cannot be written as JSON"),
    ({"type": "t", "payload": {"a": object()}}, "cannot be written as JSON"),
    ({"type": "t", "payload": DEEP}, "cannot be written as JSON"),
    ({"type": "t", "payload": {"a": ["x\x00y"]}}, "NUL"),
    ({"type": "t", "payload": {"a\x00": 1}}, "NUL"),
    ({"type": "t", "payload": "\ud800"}, "surrogate"),
    ({"type": "t", "payload": "x" * 10_000_000}, "10,000,002 bytes; the most is 1,048,576"),
    (
        {"type": "t", "queue": "nowhere"},
        'queue "nowhere" does not exist.*Existing queues: .*default',
    ),
    ({"type": "t", "queue": 5}, "queue must be a text"),
    ({"type": "t", "priority": 101}, "from -100 to 100"),
    ({"type": "t", "priority": True}, "from -100 to 100"),
    ({"type": "t", "max_attempts": 0}, "from 1 to 100"),
    ({"type": "t", "timeout": -1}, "above 0"),
    ({"type": "t", "timeout": float("inf")}, "a year"),
    ({"type": "t", "run_at": "tomorrow"}, "2026-12-24T18:00:00Z"),
    ({"type": "t", "run_at": 5}, "2026-12-24T18:00:00Z"),
    ({"type": "t", "run_at": datetime(1, 1, 1)}, "in the year 1: give"),
    ({"type": "t", "run_at": timedelta(days=3_000_000)}, "out of range|tasks_moments_in_calendar"),
    ({"type": "t", "dedupe_key": "k" * 201}, "201 characters"),
    ({"type": "t", "after": "abc"}, "list of task ids"),
    ({"type": "t", "after": ["abc"]}, "no task id"),
    ({"type": "t", "after": [uuid4()]}, "predecessor .* does not exist"),
    ({"type": "t", "after": [uuid4()], "on_failure": "explode"}, "on_failure"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input_is_refused_with_a_sentence(fields, message):
    with pytest.raises(EnqueueError, match=message), transaction.atomic():
        enqueue(**fields)
    good = NewTask(type="good")
    with pytest.raises(EnqueueError, match=message):
        enqueue_many([good, NewTask(**fields)])
    assert not Task.objects.exists()


def test_enqueue_many_keeps_the_order_and_names_the_bad_one():
    made = enqueue_many(NewTask(type="t", payload={"n": n}) for n in range(5001))
    assert [Task.objects.get(pk=made[n].id).payload["n"] for n in (0, 1999, 2000, 5000)] == [
        0,
        1999,
        2000,
        5000,
    ]
    assert Task.objects.count() == 5001
    tasks = [NewTask(type="t", queue="nowhere" if n == 3000 else None) for n in range(1, 4001)]
    with pytest.raises(EnqueueError, match='task 3000: queue "nowhere"'):
        enqueue_many(tasks)
    assert Task.objects.count() == 5001


def test_what_only_the_database_can_see_is_told_by_its_number():
    stored_larger = [1] * 500_000
    tasks = [NewTask(type="t", payload=stored_larger if n == 77 else None) for n in range(1, 101)]
    with pytest.raises(EnqueueError, match="task 77: the payload is larger than 1,048,576 bytes"):
        enqueue_many(tasks)
    assert not Task.objects.exists()


def test_large_payloads_in_bulk():
    made = enqueue_many(NewTask(type="t", payload="x" * 900_000) for _ in range(25))
    assert len({enqueued.id for enqueued in made}) == 25
    assert Task.objects.count() == 25


def test_sql_callers_get_the_same(sql):
    [(id, created)] = sql("SELECT * FROM enqueue_task('mail', '{\"a\": 1}', p_priority => 3)")
    assert created
    assert Task.objects.get(pk=id).priority == 3
    [(by_alias,)] = sql("SELECT * FROM create_task('generate_care_plan', '{}')")
    assert Task.objects.get(pk=by_alias).type == "generate_care_plan"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"type": "b", "priority": 500}', 'task 2: .*"tasks_priority_range"'),
        ('{"type": "b", "priority": "high"}', "task 2: invalid input syntax for type integer"),
        ('{"type": "b", "run_at": "soon"}', "task 2: invalid input syntax for type timestamp"),
        ("{}", 'task 2: it is an object with the key "type"'),
        ("7", 'task 2: it is an object with the key "type"'),
        ('{"type": "b", "queue": "no"}', 'task 2: queue "no" does not exist'),
        ('{"type": "b", "after": 7}', "task 2: cannot extract elements from a scalar"),
    ],
)
def test_a_foreign_call_is_told_which_task_is_bad_and_nothing_is_written(second, message):
    with pytest.raises((DataError, IntegrityError), match=message), transaction.atomic():
        claims.query("SELECT * FROM enqueue_tasks(%s::jsonb)", [f'[{{"type": "a"}}, {second}]'])
    assert not Task.objects.exists()


def test_no_predecessors_may_be_said_by_null(sql):
    [(number, _, created)] = sql(
        """SELECT * FROM enqueue_tasks('[{"type": "a", "after": null}]')"""
    )
    assert (number, created) == (1, True)
