"""What operators do: legal for each task or skipped with the reason, and always written down."""

import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from queues import claims, operations
from queues.enqueue import enqueue
from queues.models import Operation, Queue, Task, TaskDependency, Worker
from queues.operations import OperationError
from tests.console import fill

pytestmark = pytest.mark.django_db


def outcome(operation, task):
    item = operation.items.get(task_id=getattr(task, "id", task))
    return (item.outcome, item.before, item.after, item.note)


@pytest.mark.parametrize("status", Task.Status.values)
def test_retry_touches_failed_and_cancelled_only(make_task, status):
    task = make_task(status, lost=1)
    operation = operations.retry([task.id], actor="asha", reason="provider is back")
    task.refresh_from_db()
    if status in ("failed", "cancelled"):
        assert (task.status, task.attempts, task.lost, task.error, task.completed_at) == (
            "pending",
            0,
            0,
            None,
            None,
        )
        assert outcome(operation, task) == ("done", status, "pending", "")
    else:
        assert task.status == status
        assert outcome(operation, task) == (
            "skipped",
            status,
            status,
            f"it is {status}, not failed or cancelled",
        )
    assert (operation.actor, operation.reason, operation.requested) == (
        "asha",
        "provider is back",
        1,
    )


def test_retry_keeps_the_history_and_the_lease(make_task):
    task = make_task("failed", errors=[{"attempt": 1}], lease=4)
    operations.retry([task.id], actor="a")
    task.refresh_from_db()
    assert (task.errors, task.lease) == ([{"attempt": 1}], 4)


def test_retry_skips_a_key_that_is_live_again(make_task):
    old = make_task("failed", dedupe_key="k")
    enqueue("test", dedupe_key="k")
    operation = operations.retry([old.id], actor="a")
    assert outcome(operation, old)[0::3] == ("skipped", "another live task holds its dedupe key k")


def test_of_retried_tasks_that_share_a_key_the_first_comes_back(make_task):
    first, second = (make_task("failed", dedupe_key="k") for _ in range(2))
    others = [
        make_task("cancelled", dedupe_key="k", tenant_id="t1"),
        make_task("failed", dedupe_key="k", type="else"),
    ]
    operation = operations.retry([second.id, first.id, *(o.id for o in others)], actor="a")
    assert (operation.done, operation.skipped) == (3, 1)
    assert outcome(operation, second)[3] == (
        f"task {first.id}, which comes first, has the same dedupe key k"
    )


def test_a_taken_key_keeps_the_dependants_back_too(make_task):
    first = enqueue("t", dedupe_key="k")
    second = enqueue("t", after=[first.id])
    third = enqueue("t", after=[second.id])
    free = enqueue("t", after=[first.id], on_failure="run")
    operations.cancel([first.id, free.id], actor="a")
    enqueue("t", dedupe_key="k")
    operation = operations.retry([first.id, third.id, second.id, free.id], actor="a")
    assert "holds its dedupe key" in outcome(operation, first)[3]
    assert f"its predecessor {first.id} did not complete" in outcome(operation, second)[3]
    assert f"its predecessor {second.id} did not complete" in outcome(operation, third)[3]
    assert outcome(operation, free)[2] == "pending"


def test_retry_with_dependants_brings_the_chain_back():
    first = enqueue("t")
    second = enqueue("t", after=[first.id])
    third = enqueue("t", after=[second.id])
    operations.cancel([first.id], actor="a")
    assert set(Task.objects.values_list("status", flat=True)) == {"cancelled"}
    alone = operations.retry([third.id], actor="a")
    assert "retry that one" in outcome(alone, third)[3]
    operation = operations.retry([first.id], actor="a", dependants=True)
    assert (operation.done, operation.skipped) == (3, 0)
    states = dict(Task.objects.values_list("id", "status"))
    assert [states[e.id] for e in (first, second, third)] == ["pending", "blocked", "blocked"]
    assert Task.objects.get(pk=second.id).waits_on == 1


def test_retry_of_a_diamond_waits_for_each_predecessor(make_task):
    top = enqueue("t")
    left, right = enqueue("t", after=[top.id]), enqueue("t", after=[top.id], on_failure="run")
    bottom = enqueue("t", after=[left.id, right.id])
    operations.cancel([top.id], actor="a")
    assert Task.objects.get(pk=right.id).status == "pending"
    operations.retry([top.id], actor="a", dependants=True)
    states = dict(Task.objects.values_list("id", "status"))
    assert [states[e.id] for e in (top, left, right, bottom)] == [
        "pending",
        "blocked",
        "pending",
        "blocked",
    ]
    assert Task.objects.get(pk=bottom.id).waits_on == 2
    edges = TaskDependency.objects.filter(outcome__isnull=True)
    assert {(e.task_id, e.predecessor_id) for e in edges} == {
        (left.id, top.id),
        (bottom.id, left.id),
        (bottom.id, right.id),
    }


@pytest.fixture
def archive(sql):
    """Move all that has ended into the archive."""

    def move():
        sql("UPDATE queues SET archive_after = '1 minute', keep_failed = '1 minute'")
        sql(
            "UPDATE tasks SET completed_at = completed_at - interval '1 hour'"
            " WHERE completed_at IS NOT NULL"
        )
        sql("SELECT archive_finished()")
        assert not Task.objects.filter(status__in=Task.FINAL).exists()

    return move


def test_retry_brings_an_archived_chain_back(archive):
    first = enqueue("t")
    second = enqueue("t", after=[first.id])
    operations.cancel([first.id], actor="a")
    archive()
    alone = operations.retry([second.id], actor="a")
    assert f"its predecessor {first.id} did not complete" in outcome(alone, second)[3]
    archive()
    assert operations.retry([first.id], actor="a", dependants=True).done == 2
    assert dict(Task.objects.values_list("id", "status")) == {
        first.id: "pending",
        second.id: "blocked",
    }


def test_a_predecessor_that_completed_and_was_archived_holds_nothing_back(archive):
    first = enqueue("t", max_attempts=1)
    second = enqueue("t", after=[first.id])
    operations.cancel([first.id], actor="a")
    operations.retry([first.id], actor="a")
    [held] = claims.claim_tasks("w", None, 1)
    claims.complete_tasks([claims.Success(held.id, held.lease)])
    archive()
    operation = operations.retry([second.id], actor="a")
    assert outcome(operation, second)[2] == "pending"


@pytest.mark.parametrize("verb", [operations.cancel, operations.requeue, operations.rescue])
def test_other_verbs_say_that_a_task_is_archived(make_task, archive, verb):
    task = make_task("failed")
    archive()
    assert outcome(verb([task.id], actor="a"), task) == ("skipped", "", "", "it is archived")


@pytest.mark.parametrize("status", Task.Status.values)
def test_requeue_touches_scheduled_and_stuck_only(make_task, status):
    task = make_task(status)
    operation = operations.requeue([task.id], actor="a")
    task.refresh_from_db()
    if status == "scheduled":
        assert task.status == "pending"
        assert task.run_at <= timezone.now()
    else:
        assert task.status == status
        assert outcome(operation, task)[0] == "skipped"


def test_requeue_takes_a_task_from_a_gone_worker_and_keeps_attempts(make_task):
    task = make_task("processing", attempts=3)
    Worker.objects.update(status="gone")
    operation = operations.requeue([task.id], actor="a", leases=[task.lease])
    task.refresh_from_db()
    assert (task.status, task.attempts, task.worker_id) == ("pending", 3, None)
    assert outcome(operation, task) == ("done", "processing", "pending", "its worker is gone")
    assert task.errors[-1]["message"] == "its worker is gone"


def test_requeue_from_an_old_read_changes_nothing(make_task):
    task = make_task("processing", lease=2)
    Worker.objects.update(status="gone")
    operation = operations.requeue([task.id], actor="a", leases=[1])
    assert outcome(operation, task)[3] == "it was claimed again since you looked"


def test_requeue_by_force_needs_a_reason(make_task):
    task = make_task("processing")
    with pytest.raises(OperationError, match="needs a reason"):
        operations.requeue([task.id], actor="a", force=True, reason=" ")
    operations.requeue([task.id], actor="a", force=True, reason="it hangs")
    task.refresh_from_db()
    assert task.status == "pending"


@pytest.mark.parametrize("status", Task.Status.values)
def test_cancel_touches_live_tasks_only(make_task, status):
    task = make_task(status)
    operation = operations.cancel([task.id], actor="a", reason="wrong customer")
    task.refresh_from_db()
    if status in Task.LIVE:
        assert (task.status, task.error) == ("cancelled", "Cancelled: wrong customer")
    else:
        assert outcome(operation, task) == ("skipped", status, status, f"it is {status} already")


def test_cancel_settles_dependants(make_task):
    parent = make_task()
    child, cleanup = (
        enqueue("t", after=[parent.id]),
        enqueue("t", after=[parent.id], on_failure="run"),
    )
    operations.cancel([parent.id], actor="a")
    assert Task.objects.get(pk=child.id).status == "cancelled"
    assert Task.objects.get(pk=cleanup.id).status == "pending"


@pytest.mark.parametrize("verb", [operations.retry, operations.requeue, operations.cancel])
def test_what_does_not_exist_is_said(verb):
    id = uuid4()
    assert outcome(verb([id], actor="a"), id) == ("skipped", "", "", "it does not exist")


def test_nothing_and_too_much_are_refused():
    with pytest.raises(OperationError, match="No task"):
        operations.cancel([], actor="a")
    with pytest.raises(OperationError, match="More than 1,000 tasks"):
        operations.cancel([uuid4() for _ in range(1001)], actor="a")
    assert not Operation.objects.exists()


def test_a_change_and_its_record_are_one_commit(make_task, sql):
    task = make_task("failed")
    sql("ALTER TABLE operation_items ADD CONSTRAINT none_at_all CHECK (false)")
    with pytest.raises(IntegrityError, match="none_at_all"), transaction.atomic():
        operations.retry([task.id], actor="a")
    task.refresh_from_db()
    assert task.status == "failed"
    assert not Operation.objects.exists()


def test_a_cancelled_task_stays_so_after_its_time(make_task):
    task = make_task("scheduled")
    operations.cancel([task.id], actor="a")
    Task.objects.filter(pk=task.pk).update(run_at=timezone.now() - timedelta(days=1))
    task.refresh_from_db()
    assert task.status == "cancelled"


WAITING = {"blocked", "scheduled", "pending"}
NEWER_VERBS = {
    "rescue": (lambda ids: operations.rescue(ids, actor="a"), set(), "not processing"),
    "release": (
        lambda ids: operations.release(ids, actor="a", reason="deploy"),
        {"processing"},
        "not processing",
    ),
    "set priority": (
        lambda ids: operations.set_priority(ids, 7, actor="a"),
        WAITING,
        "not waiting",
    ),
    "move": (lambda ids: operations.move(ids, "gpu", actor="a"), WAITING, "not waiting"),
    "run again": (lambda ids: operations.run_again(ids, actor="a"), {"completed"}, "not completed"),
}


@pytest.mark.parametrize("verb", NEWER_VERBS)
def test_each_verb_acts_where_it_is_legal_and_nowhere_else(make_task, verb):
    Queue.objects.get_or_create(name="gpu")
    act, legal, why = NEWER_VERBS[verb]
    tasks = {status: make_task(status) for status in Task.Status.values}
    missing = uuid4()
    operation = act([missing, *(task.id for task in tasks.values())])
    assert (operation.verb, operation.requested) == (verb, 8)
    assert outcome(operation, missing) == ("skipped", "", "", "it does not exist")
    for status, task in tasks.items():
        did, before, after, note = outcome(operation, task)
        assert before == status
        if status in legal:
            assert did == "done"
            assert after == ("pending" if verb == "release" else status)
            continue
        alive = verb == "rescue" and status == "processing"
        assert (did, after) == ("skipped", status)
        assert note == (
            "its worker is alive and its timeout has not passed"
            if alive
            else f"it is {status}, {why}"
        )
        was = (task.priority, task.queue_id, task.attempts, task.updated_at)
        task.refresh_from_db()
        assert (task.priority, task.queue_id, task.attempts, task.updated_at) == was


def test_set_priority_moves_a_task_ahead(make_task):
    first, second = make_task(), make_task()
    operation = operations.set_priority([second.id, first.id], 0, actor="a")
    assert outcome(operation, first)[3] == "its priority is 0 already"
    operation = operations.set_priority([second.id], 100, actor="a", reason="the CEO waits")
    assert outcome(operation, second) == ("done", "pending", "pending", "priority 0 → 100")
    assert [task.id for task in claims.claim_tasks("w", None, 1)] == [second.id]


@pytest.mark.parametrize("priority", [101, -101, 10**6])
def test_a_priority_out_of_range_is_refused_whole(make_task, priority):
    with pytest.raises(OperationError, match="from -100 to 100"):
        operations.set_priority([make_task().id], priority, actor="a")
    assert not Operation.objects.exists()


def test_a_moved_task_is_claimed_from_its_new_queue(make_task):
    Queue.objects.get_or_create(name="gpu")
    task, there = make_task(), make_task(queue_id="gpu")
    operation = operations.move([task.id, there.id], "gpu", actor="a")
    assert outcome(operation, task) == ("done", "pending", "pending", "queue default → gpu")
    assert outcome(operation, there)[3] == "it is in queue gpu already"
    assert claims.claim_tasks("w", ["default"], 5) == []
    assert {held.id for held in claims.claim_tasks("w", ["gpu"], 5)} == {task.id, there.id}


@pytest.mark.parametrize("queue", ["nowhere", "", "nul\x00"])
def test_a_move_to_a_queue_that_does_not_exist_is_refused(make_task, queue):
    with pytest.raises(OperationError, match=r"does not exist.*default"):
        operations.move([make_task().id], queue, actor="a")
    assert not Operation.objects.exists()


def test_a_release_refunds_the_attempt_and_tells_the_worker(make_worker):
    make_worker("w")
    enqueue("t")
    [held] = claims.claim_tasks("w", None, 1)
    operation = operations.release([held.id], actor="a", reason="drain it", leases=[held.lease])
    assert outcome(operation, held) == ("done", "processing", "pending", "")
    task = Task.objects.get()
    assert (task.attempts, task.lease, task.worker_id) == (0, 1, None)
    assert (task.error, task.errors) == ("Released: drain it", [])
    [(status, lost, _)] = claims.query(
        "SELECT * FROM heartbeat('w', %s, %s, %s)", [[held.id], [held.lease], [1.0]]
    )
    assert (status, lost) == ("alive", [held.id])
    assert claims.complete_tasks([claims.Success(held.id, held.lease)]) == {held.id: "stale"}


def test_a_release_needs_a_reason_and_the_lease_that_was_seen(make_task):
    task = make_task("processing", lease=2)
    with pytest.raises(OperationError, match="needs a reason"):
        operations.release([task.id], actor="a", reason=" \n")
    operation = operations.release([task.id], actor="a", reason="r", leases=[1])
    assert outcome(operation, task)[3] == "it was claimed again since you looked"


def test_a_rescue_counts_the_loss_and_keeps_the_attempts(make_task):
    task = make_task("processing", attempts=2, lost=1)
    seen = operations.rescue([task.id], actor="a", leases=[task.lease + 1])
    assert outcome(seen, task)[3] == "it was claimed again since you looked"
    Worker.objects.update(status="gone")
    operation = operations.rescue([task.id], actor="a", leases=[task.lease])
    assert outcome(operation, task) == ("done", "processing", "pending", "its worker is gone")
    task.refresh_from_db()
    assert (task.attempts, task.lost, task.worker_id) == (2, 2, None)
    assert task.errors[-1]["class"] == "Lost"


@pytest.mark.parametrize("archived", [False, True])
def test_run_again_enqueues_a_new_task_on_the_same_trail(make_task, archive, archived):
    task = make_task(
        "completed",
        payload={"n": [1]},
        priority=4,
        tenant_id="t1",
        max_attempts=2,
        timeout=timedelta(seconds=9),
        result={"secret": 1},
    )
    follower = make_task("completed", correlation_id="trail")
    if archived:
        archive()
    operation = operations.run_again([task.id, follower.id, task.id], actor="a")
    assert (operation.requested, operation.done) == (2, 2)
    new = Task.objects.get(pk=UUID(outcome(operation, task)[3]))
    assert (new.status, new.attempts, new.result, new.correlation_id) == (
        "pending",
        0,
        None,
        str(task.id),
    )
    for column in (
        "type",
        "payload",
        "queue_id",
        "priority",
        "tenant_id",
        "max_attempts",
        "timeout",
    ):
        assert getattr(new, column) == getattr(task, column)
    again = Task.objects.get(pk=UUID(outcome(operation, follower)[3]))
    assert again.correlation_id == "trail"


def test_run_again_leaves_a_task_alone_whose_key_is_live(make_task):
    old, twin = (make_task("completed", dedupe_key="k") for _ in range(2))
    operation = operations.run_again([old.id, twin.id], actor="a")
    assert (operation.done, operation.skipped) == (1, 1)
    third = operations.run_again([old.id], actor="a")
    assert outcome(third, old)[3] == "another live task holds its dedupe key k"
    assert Task.objects.filter(status="pending", dedupe_key="k").count() == 1


def test_a_paused_queue_gives_nothing_until_it_is_resumed(make_task):
    task = make_task()
    until = timezone.now() + timedelta(hours=1)
    operations.pause("default", actor="asha", reason="bank is down", until=until)
    queue = Queue.objects.get(name="default")
    assert (queue.paused, queue.paused_by, queue.paused_reason) == (True, "asha", "bank is down")
    assert queue.paused_until == until
    assert claims.claim_tasks("w", None, 1) == []
    operations.pause("default", actor="ben", reason="still")
    paused_at = queue.paused_at
    queue.refresh_from_db()
    assert (queue.paused_by, queue.paused_until, queue.paused_at) == ("ben", None, paused_at)
    operations.resume("default", actor="asha")
    queue.refresh_from_db()
    assert (queue.paused, queue.paused_by, queue.paused_at) == (False, "", None)
    assert [held.id for held in claims.claim_tasks("w", None, 1)] == [task.id]
    acts = Operation.objects.order_by("id").values_list("verb", "actor", "reason")
    assert list(acts) == [
        ("pause queue default", "asha", "bank is down"),
        ("pause queue default", "ben", "still"),
        ("resume queue default", "asha", ""),
    ]


def test_a_pause_that_makes_no_sense_is_refused():
    with pytest.raises(OperationError, match="end of the pause has passed"):
        operations.pause("default", actor="a", until=timezone.now())
    with pytest.raises(OperationError, match="Queue nowhere: it does not exist"):
        operations.pause("nowhere", actor="a")
    with pytest.raises(OperationError, match="Queue default: it is not paused"):
        operations.resume("default", actor="a")
    assert not Operation.objects.exists()


MANY = 20_000


@pytest.mark.parametrize(
    ("verb", "status", "act"),
    [
        ("retry", "failed", operations.retry),
        ("requeue", "scheduled", operations.requeue),
        ("cancel", "pending", operations.cancel),
        *((verb, None, act) for verb, (act, _, _) in NEWER_VERBS.items()),
    ],
)
def test_twenty_thousand_tasks_take_seconds(sql, monkeypatch, verb, status, act):
    monkeypatch.setattr(operations, "MAX_TASKS", MANY)
    Queue.objects.get_or_create(name="gpu")
    status = status or {"run again": "completed", "set priority": "pending", "move": "pending"}.get(
        verb, "processing"
    )
    keys = {"dedupe_key": "'k' || n"} if verb in ("retry", "run again") else {}
    # The planner's statistics are those of a table that was analysed while it was empty.
    sql("INSERT INTO tasks (type) SELECT 't' FROM generate_series(1, 2000)")
    sql("DELETE FROM tasks")
    sql("ANALYZE tasks")
    fill(sql, status, MANY, **keys)
    Worker.objects.update(status="gone")
    ids = list(Task.objects.values_list("id", flat=True))
    sql("SET LOCAL statement_timeout = '30s'")
    operation = act(ids) if verb in NEWER_VERBS else act(ids, actor="a")
    assert (operation.done, operation.skipped) == (MANY, 0)
    assert operation.items.filter(outcome="done").count() == MANY


def test_a_long_chain_is_cancelled_and_retried_in_seconds(sql):
    ids = [enqueue("t").id]
    for _ in range(300):
        ids.append(enqueue("t", after=[ids[-1]]).id)
    began = time.monotonic()
    operations.cancel(ids[:1], actor="a")
    assert set(Task.objects.values_list("status", flat=True)) == {"cancelled"}
    alone = operations.retry(ids[1:], actor="a")
    assert (alone.done, alone.skipped) == (0, 300)
    assert operations.retry(ids[:1], actor="a", dependants=True).done == 301
    assert time.monotonic() - began < 30
