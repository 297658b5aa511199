"""Django's Tasks API: what its documentation says of a backend, in rows and in a real worker."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone

from queues import operations, registry
from queues.backend import PostgresBackend
from queues.enqueue import EnqueueError, enqueue
from queues.models import Queue, Task, Worker
from queues.tasks_api import (
    InvalidTask,
    InvalidTaskBackend,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
    task_backends,
    task_enqueued,
)
from queues.upkeep import ensure_queues
from tests import tasks
from tests.conftest import eventually

pytestmark = pytest.mark.django_db
in_a_worker = pytest.mark.django_db(transaction=True)


@pytest.fixture
def enqueued():
    """What task_enqueued was sent with."""
    sent = []

    def note(sender, task_result, **kwargs):
        sent.append((sender, task_result))

    task_enqueued.connect(note)
    yield sent
    task_enqueued.disconnect(note)


@pytest.fixture
def use(settings):
    """Put these options behind the alias `default`."""

    def put(**params):
        settings.TASKS = {"default": {"BACKEND": "queues.backend.PostgresBackend", **params}}

    return put


def row(result):
    return Task.objects.get(pk=result.id)


def finished(result, seconds=30):
    def look():
        result.refresh()
        return result.is_finished

    eventually(look, seconds)
    return result


def test_it_supports_all_that_the_api_knows():
    backend = task_backends["default"]
    assert isinstance(backend, PostgresBackend)
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority
    assert list(backend.check()) == []


def test_a_task_lands_in_the_table_of_all_tasks(enqueued):
    before = timezone.now()
    result = tasks.add.enqueue(1, right=2)
    kept = row(result)
    assert (kept.type, kept.payload) == ("tests.tasks.add", {"args": [1], "kwargs": {"right": 2}})
    assert (kept.status, kept.queue_id, kept.priority) == ("pending", "default", 0)
    assert (result.status, result.args, result.kwargs) == (
        TaskResultStatus.READY,
        [1],
        {"right": 2},
    )
    assert result.task is tasks.add
    assert before - timedelta(seconds=1) < result.enqueued_at == kept.created_at
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    assert (result.worker_ids, result.attempts, result.errors) == ([], 0, [])
    assert (result.backend, result.is_finished) == ("default", False)
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value
    assert enqueued == [(PostgresBackend, result)]
    assert tasks.add.get_result(result.id) == result


def test_a_task_is_enqueued_and_found_from_coroutines(enqueued):
    @async_to_sync
    async def go():
        result = await tasks.queues_named.aenqueue("x")
        again = await tasks.queues_named.aget_result(result.id)
        await again.arefresh()
        with pytest.raises(TaskResultDoesNotExist):
            await tasks.queues_named.aget_result(str(uuid4()))
        with pytest.raises(TaskResultMismatch):
            await tasks.add.aget_result(result.id)
        return result, again

    result, again = go()
    assert result == again
    assert len(enqueued) == 1
    assert row(result).payload == {"args": ["x"], "kwargs": {}}


def test_using_says_when_where_and_how_urgent(use):
    use(QUEUES=[])
    Queue.objects.create(name="reports")
    later = timezone.now() + timedelta(hours=1)
    for_later = tasks.add.using(priority=-100, queue_name="reports", run_after=later)
    result = for_later.enqueue(1)
    kept = row(result)
    assert (kept.status, kept.run_at, kept.queue_id, kept.priority) == (
        "scheduled",
        later,
        "reports",
        -100,
    )
    assert result.status == TaskResultStatus.READY
    assert tasks.add.get_result(result.id).task == for_later == result.task


@pytest.mark.parametrize("priority", [101, -101, 1.5])
def test_a_priority_is_a_whole_number_from_minus_100_to_100(priority):
    with pytest.raises(InvalidTask, match="priority"):
        tasks.add.using(priority=priority)


def test_what_is_no_task_is_refused():
    with pytest.raises(InvalidTask, match="module level"):
        tasks.task(lambda: None)
    with pytest.raises(InvalidTask, match="aware"):
        tasks.add.using(run_after=datetime(2030, 1, 1))
    with pytest.raises(InvalidTask, match="context"):
        tasks.task(takes_context=True)(tasks.add.func)
    with pytest.raises(InvalidTask, match="not valid for backend"):
        tasks.add.using(queue_name="nowhere")


@pytest.mark.parametrize("argument", [object(), float("nan"), "a\x00b", b"\xff", "x" * 1_100_000])
def test_arguments_that_cannot_be_stored_are_refused(argument, enqueued):
    with pytest.raises((TypeError, ValueError)):
        tasks.add.enqueue(argument)
    assert not Task.objects.exists()
    assert enqueued == []


def test_a_queue_that_does_not_exist_is_named(use):
    use(QUEUES=[])
    with transaction.atomic(), pytest.raises(EnqueueError, match="nowhere"), transaction.atomic():
        tasks.add.using(queue_name="nowhere").enqueue(1)


def test_migrate_creates_the_queues_of_the_backend(use):
    use(QUEUES=["letters", "default"])
    ensure_queues()
    assert Queue.objects.filter(name="letters").exists()


def test_the_options_are_those_of_a_handler(use, monkeypatch):
    use(OPTIONS={"max_attempts": 7, "timeout": 90, "backoff": timedelta(seconds=2)})
    monkeypatch.setattr(registry, "_handlers", {})
    monkeypatch.setattr("queues.backend._declared", {})
    result = tasks.add.enqueue(1)
    kept = row(result)
    assert (kept.max_attempts, kept.timeout) == (7, timedelta(seconds=90))
    handler = registry.find("tests.tasks.add")
    assert (handler.max_attempts, handler.timeout.seconds, handler.backoff.seconds) == (7, 90, 2)


@pytest.mark.parametrize(
    "options", [{"retries": 1}, {"max_attempts": 0}, {"max_attempts": "5"}, {"timeout": -1}]
)
def test_an_option_that_cannot_be_meant_is_named(use, options):
    use(OPTIONS=options)
    with pytest.raises(InvalidTaskBackend, match=next(iter(options))):
        _ = task_backends["default"]


def test_only_declared_tasks_are_known():
    assert {"tests.tasks.add", "tests.tasks.queues_named"} <= set(registry.known_types())
    # Importable all of them, and no task of ours.
    for path in ("os.system", "tests.tasks.note_signal", "tests.tasks.os", "payments.money"):
        assert registry.find(path) is None


def test_a_type_has_one_handler_whoever_declares_it():
    with pytest.raises(ImproperlyConfigured, match="two handlers"):
        registry.handles("tests.tasks.add")(lambda ctx: None)


@pytest.mark.parametrize(
    "id", ["", "no-uuid", str(uuid4()), None], ids=["empty", "no uuid", "unknown", "none"]
)
def test_an_unknown_result_does_not_exist(id):
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(id)


def test_a_result_is_of_its_own_task_and_of_a_task_of_this_api():
    result = tasks.add.enqueue(1)
    with pytest.raises(TaskResultMismatch):
        tasks.log.get_result(result.id)
    other = enqueue("echo", {"args": [], "kwargs": {}})
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(str(other.id))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("blocked", "READY"),
        ("scheduled", "READY"),
        ("pending", "READY"),
        ("processing", "RUNNING"),
        ("completed", "SUCCESSFUL"),
        ("failed", "FAILED"),
        ("cancelled", "FAILED"),
    ],
)
def test_each_status_has_its_name_in_the_api(make_task, status, told):
    kept = make_task(status, type="tests.tasks.add", payload={"args": [1]})
    result = tasks.add.get_result(str(kept.id))
    assert result.status == told
    assert result.finished_at == kept.completed_at
    assert result.is_finished is (status in Task.FINAL)
    assert result.worker_ids == (["w1"] if status in ("processing", "completed", "failed") else [])


def test_a_payload_that_others_wrote_does_not_break_the_result(make_task):
    kept = make_task(type="tests.tasks.add", payload=["what", "is", "this"])
    result = tasks.add.get_result(str(kept.id))
    assert (result.args, result.kwargs) == ([], {})


def test_a_task_that_was_moved_to_a_queue_of_others_is_still_found():
    result = tasks.add.enqueue(1)
    Queue.objects.create(name="elsewhere")
    Task.objects.filter(pk=result.id).update(queue="elsewhere", priority=3)
    task = tasks.add.get_result(result.id).task
    assert (task.priority, task.func) == (3, tasks.add.func)


def test_an_archived_result_is_found(make_task, sql):
    ended = timezone.now() - timedelta(days=60)
    kept = make_task("completed", type="tests.tasks.add", result=3, completed_at=ended)
    sql("SELECT archive_finished()")
    assert not Task.objects.exists()
    result = tasks.add.get_result(str(kept.id))
    assert (result.return_value, result.finished_at) == (3, ended)


def test_a_long_history_still_counts_its_attempts(make_task):
    """The middle of a history of more than 25 attempts is dropped."""
    at = timezone.now().isoformat()
    errors = [
        {"attempt": n, "worker": f"w{n}", "started_at": at, "class": "KeyError", "message": "k"}
        for n in (1, 9, 10)
    ]
    kept = make_task(
        "processing", type="tests.tasks.add", errors=errors, attempts=11, worker_id="w11"
    )
    result = tasks.add.get_result(str(kept.id))
    assert result.attempts == 11
    assert result.worker_ids == ["w1", *[""] * 7, "w9", "w10", "w11"]
    assert [error.exception_class for error in result.errors] == [KeyError] * 3
    assert result.errors[0].traceback == "k"


@in_a_worker
def test_enqueue_commits_or_rolls_back_with_its_transaction(transactional_db, run_worker, tmp_path):
    file = tmp_path / "log"
    with pytest.raises(KeyError), transaction.atomic():
        lost = tasks.log.enqueue(str(file), "rolled back")
        raise KeyError
    with transaction.atomic():
        kept = tasks.log.enqueue(str(file), "committed")
    assert run_worker("--drain").wait() == 0
    assert file.read_text() == "committed\n"
    with pytest.raises(TaskResultDoesNotExist):
        tasks.log.get_result(lost.id)
    kept.refresh()
    assert kept.status == TaskResultStatus.SUCCESSFUL


@in_a_worker
def test_a_worker_runs_tasks_of_every_kind(transactional_db, run_worker):
    ends = {
        "add": tasks.add.enqueue(1, right=2),
        "async": tasks.queues_named.enqueue("default"),
        "tuple": tasks.returns.enqueue("tuple"),
        "bytes": tasks.returns.enqueue("bytes"),
        "nothing": tasks.returns.enqueue("nothing"),
        "receiver": tasks.returns.enqueue("receiver fails"),
        "deferred": tasks.add.using(run_after=timezone.now() + timedelta(seconds=0.5)).enqueue(7),
    }
    worker = run_worker()
    for result in ends.values():
        finished(result)
    assert {name: result.return_value for name, result in ends.items()} == {
        "add": 3,
        "async": [["default"], 1],
        "tuple": [1, [2]],
        "bytes": "text",
        "nothing": None,
        "receiver": "receiver fails",
        "deferred": 7,
    }
    assert "a receiver that fails" in worker.lines
    for result in ends.values():
        assert result.errors == []
        assert len(result.worker_ids) == result.attempts == 1
        assert result.enqueued_at <= result.started_at == result.last_attempted_at
        assert result.started_at <= result.finished_at
    assert ends["deferred"].started_at >= ends["deferred"].task.run_after
    assert async_to_sync(tasks.add.aget_result)(ends["add"].id).return_value == 3
    assert worker.stop() == 0


@in_a_worker
def test_each_failed_attempt_leaves_its_error(transactional_db, run_worker):
    twice = tasks.attempts.enqueue(3, extra={"a": [1]})
    broken = tasks.broken.enqueue("no luck")
    refused = tasks.refuses.enqueue()
    coroutine = tasks.broken_coroutine.enqueue()
    unstorable = tasks.returns.enqueue("object")
    malformed = enqueue("tests.tasks.add", {"args": 5})
    Task.objects.filter(pk__in=[broken.id, coroutine.id]).update(max_attempts=1)
    run_worker()
    assert finished(twice).return_value == {
        "attempt": 3,
        "status": "RUNNING",
        "workers": 3,
        "errors": ["queues.retry.Retry"] * 2,
        "arguments": [[3], {"extra": {"a": [1]}}],
        "extra": {"a": [1]},
    }
    assert twice.attempts == 3
    assert len(set(twice.worker_ids)) == 1
    assert ["attempt 1" in e.traceback for e in twice.errors] == [True, False]
    assert twice.started_at < twice.last_attempted_at < twice.finished_at

    [error] = finished(broken).errors
    assert (broken.status, error.exception_class) == (TaskResultStatus.FAILED, tasks.Broken)
    assert error.traceback.rstrip().endswith("Broken: no luck")
    assert "in broken" in error.traceback
    with pytest.raises(ValueError, match="failed"):
        _ = broken.return_value
    assert finished(coroutine).errors[0].exception_class is tasks.Broken
    assert (finished(refused).attempts, len(refused.errors)) == (1, 1)
    assert finished(unstorable).attempts == 1
    assert "JSON cannot hold" in unstorable.errors[0].traceback
    assert unstorable.errors[0].exception_class is ValueError
    result = finished(tasks.add.get_result(str(malformed.id)))
    assert "The payload is not" in result.errors[0].traceback


@in_a_worker
def test_a_retried_task_keeps_its_history(transactional_db, run_worker):
    result = tasks.broken.enqueue("again")
    Task.objects.filter(pk=result.id).update(max_attempts=1)
    run_worker()
    finished(result)
    operations.retry([result.id], actor="tester")
    eventually(lambda: row(result).lease == 2 and row(result).status == "failed")
    result.refresh()
    assert (result.attempts, len(result.errors)) == (2, 2)
    assert result.started_at < result.last_attempted_at


@in_a_worker
def test_the_urgent_run_first(transactional_db, run_worker, tmp_path):
    file = tmp_path / "log"
    for priority in (-100, 0, 100, 50):
        tasks.log.using(priority=priority).enqueue(str(file), priority)
    tasks.log.enqueue(str(file), "its own 10")
    assert run_worker("--drain", "--concurrency", "1").wait() == 0
    assert file.read_text().split("\n")[:-1] == ["100", "50", "its own 10", "0", "-100"]


@in_a_worker
def test_signals_are_sent_where_the_task_runs(transactional_db, run_worker, tmp_path, enqueued):
    file = tmp_path / "signals"
    tasks.attempts.enqueue(2)
    tasks.refuses.enqueue()
    worker = run_worker(SIGNALS_FILE=str(file)).started()
    eventually(lambda: file.exists() and file.read_text().count("finished") == 2)
    assert worker.stop() == 0
    pid = Worker.objects.get().pid
    assert sorted(file.read_text().splitlines()) == [
        f"finished attempts PostgresBackend SUCCESSFUL SUCCESSFUL 2 {pid}",
        f"finished refuses PostgresBackend FAILED FAILED 1 {pid}",
        f"started attempts PostgresBackend RUNNING RUNNING 1 {pid}",
        f"started attempts PostgresBackend RUNNING RUNNING 2 {pid}",
        f"started refuses PostgresBackend RUNNING RUNNING 1 {pid}",
    ]
    assert len(enqueued) == 2
