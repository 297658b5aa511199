"""Coroutines, batches, poison, isolation and supervision: what real worker processes leave in rows."""

import json
import os
import re
import signal
from collections import Counter

import pytest

from queues import operations
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker
from tests.conftest import eventually

pytestmark = pytest.mark.django_db(transaction=True)
CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND usename = current_user
            AND pid <> pg_backend_pid()"""


def row(made):
    return Task.objects.get(pk=made.id)


def settled():
    return not Task.objects.filter(status__in=Task.LIVE).exists()


def all_but_snoozed(count):
    """Only the snoozed are left; what is scheduled for its next attempt has yet to end."""
    live = Task.objects.filter(status__in=Task.LIVE).values_list("status", flat=True)
    return list(live) == ["scheduled"] * count


def hurry():
    """Run scheduled tasks now: a backoff need not be waited for."""
    waiting = list(Task.objects.filter(status="scheduled").values_list("id", flat=True))
    if waiting:
        operations.requeue(waiting, actor="test")


def settled_in_a_hurry():
    hurry()
    return settled()


def events(worker, name):
    lines = [json.loads(line) for line in worker.lines.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def states(tasks):
    return Counter((task.status, task.attempts, task.lost) for task in tasks)


# Coroutines


def test_coroutines_run_together(run_worker):
    enqueue_many(NewTask(type="async_sleep", payload={"seconds": 0.5}) for _ in range(50))
    assert run_worker("--drain", "--concurrency", "2").wait() == 0
    assert states(Task.objects.all()) == {("completed", 1, 0): 50}
    first_end = Task.objects.order_by("completed_at").first().completed_at
    assert Task.objects.filter(started_at__lt=first_end).count() > 40


def test_no_more_coroutines_run_at_once_than_there_are_places(run_worker, tmp_path):
    """A burst of quick ones makes the worker claim ahead; the next, slow ones must not pile up."""
    go = tmp_path / "go"
    enqueue_many(
        NewTask(type="async_sleep", payload={"seconds": 0}, priority=1) for _ in range(2000)
    )
    gates = enqueue_many(NewTask(type="async_gate", payload={"go": str(go)}) for _ in range(300))
    run_worker()
    eventually(lambda: Task.objects.filter(type="async_gate", lease__gt=0).count() > 90)
    # A few may be held without a place, so that threads have work if it comes; then they go back.
    held = Task.objects.filter(type="async_gate", status="processing")
    eventually(lambda: 100 <= held.count() <= 104)
    go.touch()
    eventually(settled)
    done = Task.objects.filter(pk__in=[made.id for made in gates])
    assert states(done) == {("completed", 1, 0): 300}
    assert max(task.result for task in done) == 100


def test_coroutines_that_wait_hold_up_no_thread(run_worker, tmp_path):
    go = tmp_path / "go"
    gates = enqueue_many(NewTask(type="async_gate", payload={"go": str(go)}) for _ in range(10))
    run_worker("--concurrency", "4")
    eventually(lambda: Task.objects.filter(type="async_gate", status="processing").count() == 10)
    plain = [enqueue("echo", n) for n in range(8)]
    eventually(lambda: states(map(row, plain)) == {("completed", 1, 0): 8})
    more = enqueue_many(NewTask(type="async_gate", payload={"go": str(go)}) for _ in range(10))
    eventually(lambda: Task.objects.filter(type="async_gate", status="processing").count() == 20)
    go.touch()
    eventually(settled)
    assert states(map(row, [*gates, *more])) == {("completed", 1, 0): 20}


def test_how_a_coroutine_ends(run_worker):
    made = {
        kind: enqueue(f"async_{kind}", {})
        for kind in ("fail", "overrun", "gives_up", "query", "complete")
    }
    worker = run_worker()
    eventually(settled)
    rows = {kind: row(task) for kind, task in made.items()}
    assert {kind: (task.status, task.attempts) for kind, task in rows.items()} == {
        "fail": ("failed", 2),
        "overrun": ("failed", 1),
        "gives_up": ("failed", 1),
        "query": ("completed", 1),
        "complete": ("completed", 1),
    }
    assert rows["fail"].error_fingerprint == "ValueError: broken @ handlers.py:async_fail"
    assert rows["overrun"].error == "TaskTimeout: ran longer than its timeout of 0:00:00.200000"
    assert rows["gives_up"].error.startswith("TimeoutError")
    assert rows["query"].result == Queue.objects.exclude(name__startswith="effect-").count()
    assert rows["complete"].result == "done"
    assert worker.stop() == 0


def test_cancelling_a_task_cancels_its_coroutine(run_worker, tmp_path):
    started, ended = tmp_path / "started", tmp_path / "ended"
    made = enqueue("async_wait", {"started": str(started), "ended": str(ended)})
    worker = run_worker()
    eventually(started.exists)
    operations.cancel([made.id], actor="a")
    eventually(ended.exists)
    eventually(lambda: "its outcome is thrown away" in worker.lines)
    assert row(made).status == "cancelled"
    assert worker.stop() == 0


def test_queries_of_coroutines_survive_cut_connections(run_worker, sql):
    run_worker().started()
    for _ in range(4):
        made = enqueue("async_query")
        eventually(lambda made=made: row(made).status in Task.FINAL)
        assert (row(made).status, row(made).error) == ("completed", None)
        sql(CUT)


# Batches


def test_a_batch_handler_is_called_once_for_many(run_worker, tmp_path):
    file = tmp_path / "calls"
    made = enqueue_many(
        NewTask(type="batch_count", payload={"file": str(file), "n": n}) for n in range(400)
    )
    assert run_worker("--drain", "--concurrency", "1").wait() == 0
    assert [row(task).result for task in made] == list(range(400))
    calls = [int(line.split()[0]) for line in file.read_text().splitlines()]
    assert sum(calls) == 400
    assert max(calls) == 50
    assert len(calls) < 40


def test_each_task_of_a_batch_has_its_own_outcome(run_worker):
    kinds = ["result", "nothing", "retry", "fail", "snooze", "error", "large"] * 4
    made = enqueue_many(NewTask(type="batch_outcomes", payload=kind) for kind in kinds)
    worker = run_worker("--concurrency", "1")
    eventually(lambda: all_but_snoozed(4))
    ends = {
        (kind, row(task).status, row(task).attempts) for kind, task in zip(kinds, made, strict=True)
    }
    assert ends == {
        ("result", "completed", 1),
        ("nothing", "completed", 1),
        ("retry", "completed", 2),
        ("fail", "failed", 1),
        ("snooze", "scheduled", 0),
        ("error", "failed", 2),
        ("large", "failed", 1),
    }
    assert row(made[0]).result == {"attempt": 1}
    assert [row(made[n]).error for n in (3, 5)] == ["Fail: never", "ValueError: broken"]
    assert "2,000,002 bytes" in row(made[6]).error
    assert worker.stop() == 0


WRONG = {
    "short": "tasks and returned [0-9]+ values: return None or a list",
    "text": "tasks and returned str: return None or a list",
    "raises": "ValueError: broken",
}


@pytest.mark.parametrize("how", WRONG)
def test_a_batch_that_answers_wrongly_or_raises_fails_each_of_its_tasks(run_worker, how):
    made = enqueue_many(NewTask(type="batch_wrong", payload=how) for _ in range(20))
    assert run_worker("--drain", "--concurrency", "1").wait() == 0
    for task in map(row, made):
        assert (task.status, task.attempts) == ("failed", 1)
        assert re.search(WRONG[how], task.error)


# Poison


def test_poison_is_failed_for_good_and_harms_no_neighbour(run_worker, tmp_path):
    """Three tasks that kill their process, each in its own way, among 300 good ones."""
    ways = ["SIGKILL", "exit", "segfault"]
    file = tmp_path / "runs"
    tasks = [NewTask(type="append", payload={"file": str(file)}) for _ in range(300)]
    for place, how in zip((100, 180, 260), ways, strict=True):
        tasks.insert(place, NewTask(type="killer", payload={"how": how}))
    enqueue_many(tasks)
    # Nobody but the supervisor gives anything back here.
    worker = run_worker("--concurrency", "1", QUEUE_LOST_AFTER_SECONDS="3600", LOG_JSON="true")
    eventually(settled_in_a_hurry, 60)
    assert states(Task.objects.filter(type="append")) == {("completed", 1, 0): 300}
    poison = {task.payload["how"]: task for task in Task.objects.filter(type="killer")}
    assert states(poison.values()) == {("failed", 3, 3): 3}
    assert {how: task.error for how, task in poison.items()} == {
        "SIGKILL": "WorkerDied: the process that ran it was ended by SIGKILL",
        "exit": "WorkerDied: the process that ran it exited with code 7",
        "segfault": "WorkerDied: the process that ran it was ended by SIGSEGV",
    }
    assert len(poison["exit"].errors) == 3
    # Once each in the worker's own process, then in one apart.
    deaths = events(worker, "worker process died; starting another")
    assert sorted(line["code"] for line in deaths) == [-11, -9, 7]
    # What had just run when its process died, and was not recorded yet, ran again.
    runs = Counter(line.split()[0] for line in file.read_text().splitlines())
    assert len(runs) == 300
    assert max(runs.values()) <= 1 + len(ways)
    assert worker.stop() == 0


def test_what_ran_beside_poison_is_charged_once_and_what_waited_is_not(run_worker, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    enqueue_many(NewTask(type="echo", priority=10) for _ in range(1000))
    beside = enqueue("wait", {"started": str(started), "go": str(go)}, priority=2)
    bad = enqueue("killer", {"how": "SIGKILL", "after": str(started)}, priority=1)
    waiting = enqueue_many(NewTask(type="echo") for _ in range(50))
    worker = run_worker("--concurrency", "2", QUEUE_LOST_AFTER_SECONDS="3600", LOG_JSON="true")
    eventually(lambda: row(bad).lost == 1)
    assert (row(beside).status, row(beside).lost, row(beside).attempts) == ("scheduled", 1, 1)
    [death] = eventually(lambda: events(worker, "worker died; its tasks were taken back"))
    assert (death["running"], death["how"]) == (2, "ended by SIGKILL")
    go.touch()
    eventually(settled_in_a_hurry)
    assert states(map(row, waiting)) == {("completed", 1, 0): 50}
    assert states([row(beside), row(bad)]) == {("completed", 2, 1): 1, ("failed", 3, 3): 1}


def test_poison_in_a_batch_is_found(run_worker, tmp_path):
    """All that shared the call are suspects; on their own the good ones complete."""
    after = tmp_path / "go"
    enqueue_many(
        NewTask(type="batch_killer", payload={"bad": n == 3, "after": str(after)}) for n in range(5)
    )
    worker = run_worker("--concurrency", "1", QUEUE_LOST_AFTER_SECONDS="3600", LOG_JSON="true")
    after.touch()
    eventually(settled_in_a_hurry, 60)
    assert states(Task.objects.filter(payload__bad=True)) == {("failed", 3, 3): 1}
    good = Task.objects.filter(payload__bad=False)
    assert {(task.status, task.lost <= 1) for task in good} == {("completed", True)}
    assert len(events(worker, "worker process died; starting another")) == 1


# Isolation


def suspect(type, payload=None, **fields):
    """A task that has lost two processes already."""
    made = enqueue(type, payload, **fields)
    Task.objects.filter(pk=made.id).update(lost=2)
    return made


def test_a_suspect_runs_in_a_process_of_its_own(run_worker, tmp_path):
    go, started = tmp_path / "go", tmp_path / "started"
    made = {
        "where": suspect("where"),
        "progress": suspect("progress", {"go": str(go)}),
        "complete": suspect("atomic_effect", {}),
        "coroutine": suspect("async_query"),
        "batch": suspect("batch_count", {"file": str(tmp_path / "calls"), "n": 5}),
        "retry": suspect("retry_soon"),
        "snooze": suspect("snooze_hour"),
        "error": suspect("fail", max_attempts=1),
        "timeout": suspect("overrun"),
        "stubborn": suspect("stubborn"),
        "cancelled": suspect("wait", {"started": str(started), "go": "/nowhere"}),
    }
    worker = run_worker("--concurrency", "12")
    eventually(lambda: row(made["progress"]).progress == 50)
    assert row(made["progress"]).progress_note == "half way"
    go.touch()
    eventually(started.exists)
    operations.cancel([made["cancelled"].id], actor="a")
    eventually(lambda: all_but_snoozed(1))
    rows = {kind: row(task) for kind, task in made.items()}
    completed = ("where", "progress", "complete", "coroutine", "batch", "retry")
    assert {kind: task.status for kind, task in rows.items()} == {
        **dict.fromkeys(completed, "completed"),
        "snooze": "scheduled",
        **dict.fromkeys(("error", "timeout", "stubborn"), "failed"),
        "cancelled": "cancelled",
    }
    pid = Worker.objects.get().pid
    assert rows["where"].result[1] == pid
    assert rows["where"].output_location == "exports/where.zip"
    assert (rows["complete"].result, rows["batch"].result, rows["retry"].attempts) == ("done", 5, 3)
    assert (rows["snooze"].attempts, rows["snooze"].error) == (0, "in an hour")
    assert "in fail" in rows["error"].errors[0]["traceback"]
    assert rows["timeout"].error.startswith("TaskTimeout: ran longer")
    assert "its handler did not stop" in rows["stubborn"].error
    assert {task.lost for task in rows.values()} == {2}
    assert worker.stop() == 0


# Supervision


def test_a_handler_that_does_not_stop_fails_and_its_process_is_renewed(run_worker, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    neighbour = enqueue("wait", {"started": str(started), "go": str(go)})
    worker = run_worker("--concurrency", "2").started()
    eventually(started.exists)
    stubborn = enqueue("stubborn")
    first = Worker.objects.get().pid
    eventually(lambda: row(stubborn).status == "failed")
    assert "its handler did not stop: its process was ended" in row(stubborn).error
    go.touch()
    eventually(lambda: Worker.objects.filter(status="alive").exclude(pid=first).exists())
    assert states([row(neighbour), row(stubborn)]) == {("completed", 1, 0): 1, ("failed", 1, 0): 1}
    after = enqueue("where")
    eventually(lambda: row(after).status == "completed")
    assert row(after).result[0] != first
    assert "worker process died" not in worker.lines
    assert worker.stop() == 0


def test_no_task_fails_because_a_function_of_the_database_is_missing(run_worker, sql):
    worker = run_worker("--grace", "0.3").started()
    sql("ALTER FUNCTION complete_tasks RENAME TO complete_tasks_gone")
    try:
        made = enqueue_many(NewTask(type="echo") for _ in range(20))
        eventually(lambda: "a function of the database is missing" in worker.lines)
        # What it held it goes on holding; what it had not yet claimed then is left to others.
        held = states(map(row, made))
        assert set(held) <= {("processing", 1, 0), ("pending", 0, 0)}
        assert held[("processing", 1, 0)] >= 1
    finally:
        sql("ALTER FUNCTION complete_tasks_gone RENAME TO complete_tasks")
    eventually(settled)
    assert states(map(row, made)) == {("completed", 1, 0): 20}


def two_waiting(run_worker, tmp_path, *arguments):
    """Two processes, each with one task that waits for the file `go`."""
    go = tmp_path / "go"
    made = [
        enqueue("wait", {"started": str(tmp_path / f"started-{n}"), "go": str(go)}) for n in (0, 1)
    ]
    worker = run_worker("--processes", "2", "--concurrency", "1", *arguments)
    eventually(lambda: all((tmp_path / f"started-{n}").exists() for n in (0, 1)))
    assert len({row(task).worker_id for task in made}) == 2
    assert Worker.objects.values("pid").distinct().count() == 2
    return worker, made, go


@pytest.mark.parametrize("to_group", [False, True], ids=["parent", "group"])
def test_one_signal_ends_all_processes_when_their_handlers_have_ended(
    run_worker, tmp_path, to_group
):
    worker, made, go = two_waiting(run_worker, tmp_path)
    if to_group:
        os.killpg(worker.process.pid, signal.SIGTERM)
    else:
        worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: worker.lines.count("stopping") == 2)
    go.touch()
    assert worker.wait(20) == 0, worker.lines
    assert states(map(row, made)) == {("completed", 1, 0): 2}
    assert set(Worker.objects.values_list("status", flat=True)) == {"gone"}


@pytest.mark.parametrize("to_group", [False, True], ids=["parent", "group"])
def test_a_second_signal_ends_all_at_once(run_worker, tmp_path, to_group):
    worker, made, _ = two_waiting(run_worker, tmp_path, "--grace", "3600")
    send = os.killpg if to_group else os.kill
    send(worker.process.pid, signal.SIGINT)
    eventually(lambda: worker.lines.count("stopping") == 2)
    send(worker.process.pid, signal.SIGINT)
    assert worker.wait(20) == 0, worker.lines
    assert states(map(row, made)) == {("pending", 0, 0): 2}


def test_workers_whose_supervisor_was_killed_stop_and_give_back(run_worker, tmp_path):
    worker, made, _ = two_waiting(run_worker, tmp_path, "--grace", "0.3")
    pids = list(Worker.objects.values_list("pid", flat=True))
    worker.process.kill()
    eventually(lambda: not Worker.objects.exclude(status="gone").exists())
    assert states(map(row, made)) == {("pending", 0, 0): 2}
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_a_signal_while_processes_start_ends_those_that_come_after_it(run_worker):
    worker = run_worker("--processes", "6")
    eventually(lambda: "worker started polling" in worker.lines or Worker.objects.exists())
    worker.send(signal.SIGTERM)
    assert worker.wait(30) == 0, worker.lines
    assert set(Worker.objects.values_list("status", flat=True)) <= {"gone"}
