"""What operators do: legal for each task or skipped with the reason, and always written down."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from queues import operations
from queues.enqueue import enqueue
from queues.models import Operation, Task, Worker
from queues.operations import OperationError

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


def test_a_change_and_its_record_are_one_commit(make_task, monkeypatch):
    task = make_task("failed")
    monkeypatch.setattr(operations.OperationItem.objects, "bulk_create", lambda items: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        operations.retry([task.id], actor="a")
    task.refresh_from_db()
    assert task.status == "failed"


def test_a_cancelled_task_stays_so_after_its_time(make_task):
    task = make_task("scheduled")
    operations.cancel([task.id], actor="a")
    Task.objects.filter(pk=task.pk).update(run_at=timezone.now() - timedelta(days=1))
    task.refresh_from_db()
    assert task.status == "cancelled"
