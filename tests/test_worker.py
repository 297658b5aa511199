"""The worker as a real process: what it does is read from the rows it leaves."""

import json
import signal
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from queues import claims, operations
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker
from tests.conftest import eventually

pytestmark = pytest.mark.django_db(transaction=True)


def row(made):
    return Task.objects.get(pk=made.id)


def settled():
    return not Task.objects.filter(status__in=Task.LIVE).exists()


def test_drain_runs_what_is_due_and_exits(run_worker):
    made = enqueue_many(NewTask(type="echo", payload={"n": n}) for n in range(1000))
    later = enqueue("echo", run_at=timedelta(hours=1))
    worker = run_worker("--drain")
    assert worker.wait() == 0, worker.lines
    assert set(Task.objects.exclude(pk=later.id).values_list("status", "attempts", "lease")) == {
        ("completed", 1, 1)
    }
    assert row(made[7]).result == {"n": 7}
    assert row(later).status == "scheduled"
    assert Worker.objects.get().status == "gone"
    assert "tasks completed" in worker.lines


def test_drain_follows_a_chain_to_its_end(run_worker):
    first = enqueue("echo", "a")
    second = enqueue("echo", "b", after=[first.id])
    third = enqueue("echo", "c", after=[second.id])
    assert run_worker("--drain").wait() == 0
    assert [row(made).status for made in (first, second, third)] == ["completed"] * 3
    assert row(first).completed_at <= row(second).started_at <= row(third).started_at


def test_each_way_to_end_an_attempt(run_worker, tmp_path):
    made = {
        "fail": enqueue("fail"),
        "fail_for_good": enqueue("fail_for_good", max_attempts=9),
        "retry_soon": enqueue("retry_soon"),
        "snooze_once": enqueue("snooze_once", {"file": str(tmp_path / "snoozed")}),
        "exit": enqueue("exit", max_attempts=1),
        "nul_error": enqueue("nul_error"),
        "overrun": enqueue("overrun"),
        "nan": enqueue("bad_result", "nan"),
        "object": enqueue("bad_result", "object"),
        "large": enqueue("bad_result", "large"),
        "after_all": enqueue("echo", "still alive", priority=-100),
    }
    worker = run_worker()
    eventually(settled)
    rows = {name: row(task) for name, task in made.items()}
    assert {name: task.status for name, task in rows.items()} == {
        "retry_soon": "completed",
        "snooze_once": "completed",
        "after_all": "completed",
    } | dict.fromkeys(
        ("fail", "fail_for_good", "exit", "nul_error", "overrun", "nan", "object", "large"),
        "failed",
    )
    assert (rows["fail"].attempts, len(rows["fail"].errors)) == (2, 2)
    assert "in fail" in rows["fail"].errors[0]["traceback"]
    assert "executor.py" not in rows["fail"].errors[0]["traceback"]
    assert rows["fail"].error_fingerprint == "ValueError: broken at * * @ handlers.py:fail"
    assert (rows["fail_for_good"].attempts, rows["fail_for_good"].error) == (
        1,
        "Fail: can never work",
    )
    assert rows["retry_soon"].result == 3
    assert (rows["snooze_once"].attempts, rows["snooze_once"].result) == (1, 1)
    assert rows["nul_error"].error == "ValueError: a\ufffdb\ufffd"
    assert "its timeout" in rows["overrun"].error
    assert "2,000,002 bytes" in rows["large"].error
    assert rows["nan"].attempts == rows["large"].attempts == 1
    assert worker.stop() == 0


def test_an_unknown_type_waits_for_a_worker_that_knows_it(run_worker):
    made = enqueue("only-elsewhere")
    worker = run_worker().started()
    eventually(lambda: row(made).status == "scheduled")
    task = row(made)
    assert (task.attempts, task.error) == (
        0,
        "No handler for the type 'only-elsewhere' in this worker; waiting for one that has it.",
    )
    assert worker.stop() == 0


def test_an_idle_worker_is_woken_by_an_enqueue(run_worker):
    run_worker(QUEUE_POLL_SECONDS="3600").started()
    eventually(lambda: Worker.objects.filter(idle_since__isnull=False).exists())
    made = enqueue("echo", 1)
    eventually(lambda: row(made).status == "completed")


def test_a_worker_that_starts_anew_under_another_id_asks_to_be_notified_again(run_worker):
    run_worker(QUEUE_POLL_SECONDS="3600", QUEUE_HEARTBEAT_SECONDS="0.2").started()
    for _ in range(3):
        eventually(lambda: Worker.objects.filter(idle_since__isnull=False).exists())
        Worker.objects.update(status="gone", idle_since=None)
        eventually(lambda: Worker.objects.filter(status="alive").exists())
        # Wakes the one that sleeps, as a poll would.
        claims.query("SELECT pg_notify('queue_tasks', 'default')", [])
    eventually(lambda: Worker.objects.filter(idle_since__isnull=False).exists())
    made = enqueue("echo", 1)
    eventually(lambda: row(made).status == "completed")


def test_a_worker_serves_only_its_queues(run_worker):
    Queue.objects.bulk_create([Queue(name="mine"), Queue(name="theirs")])
    mine, theirs = enqueue("echo", queue="mine"), enqueue("echo", queue="theirs")
    assert run_worker("--queues", "mine", "--drain").wait() == 0
    assert (row(mine).status, row(theirs).status) == ("completed", "pending")


def test_bad_options_are_one_sentence(run_worker):
    worker = run_worker("--queues", "nowhere")
    assert worker.wait() == 1
    assert (
        worker.lines.splitlines()[-1]
        == "CommandError: There is no queue 'nowhere'. Queues: default, exports, gpu, http, jobs, payments, proof, sync."
    )


def test_sigterm_lets_the_running_task_finish_and_gives_the_rest_back(run_worker, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    # Quick tasks deepen the buffer, so that more than the running one is held at the signal.
    enqueue_many(NewTask(type="echo", priority=10) for _ in range(1000))
    waits = {"started": str(started), "go": str(go)}
    slow = enqueue_many(NewTask(type="wait", payload=waits) for _ in range(100))
    worker = run_worker("--concurrency", "1")
    eventually(started.exists)
    worker.process.send_signal(signal.SIGTERM)
    given_back = Task.objects.filter(status="pending", attempts=0)
    # It has said that it stops before it stops claiming.
    eventually(given_back.filter(lease=1).exists)
    go.touch()
    assert worker.wait() == 0
    done = Task.objects.filter(pk__in=[made.id for made in slow], status="completed")
    assert done.count() == 1
    assert given_back.count() == 99


@pytest.mark.parametrize("second_signal", [False, True], ids=["grace-over", "second-signal"])
def test_what_does_not_finish_in_the_grace_is_given_back_uncharged(
    run_worker, tmp_path, second_signal
):
    started = tmp_path / "started"
    made = enqueue("wait", {"started": str(started), "go": str(tmp_path / "never")})
    worker = run_worker("--grace", "60" if second_signal else "0.3")
    eventually(started.exists)
    worker.process.send_signal(signal.SIGTERM)
    if second_signal:
        eventually(lambda: "stopping" in worker.lines)
        worker.process.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, worker.lines
    assert (row(made).status, row(made).attempts, row(made).lease) == ("pending", 0, 1)
    assert Worker.objects.get().status == "gone"


def test_a_killed_workers_tasks_are_rescued_and_complete(run_worker, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    made = [enqueue("wait", {"started": str(started), "go": str(go)}) for _ in range(4)]
    victim = run_worker()
    eventually(lambda: Task.objects.filter(status="processing").count() == 4 and started.exists())
    victim.stop(signal.SIGKILL)
    go.touch()
    survivor = run_worker()
    eventually(settled)
    for task in map(row, made):
        assert (task.status, task.lost, task.attempts) == ("completed", 1, 2)
        assert task.errors[0]["message"] == "its worker is gone"
    # It may say so only after others of its threads have run the task.
    eventually(lambda: "lost task rescued" in survivor.lines)


def test_a_zombie_that_wakes_again_is_refused_and_starts_anew(run_worker, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    made = enqueue("wait", {"started": str(started), "go": str(go)})
    zombie = run_worker("--name", "zombie")
    eventually(started.exists)
    zombie.send(signal.SIGSTOP)
    other = run_worker("--name", "other")
    eventually(lambda: row(made).lost == 1 and row(made).status == "processing")
    zombie.send(signal.SIGCONT)
    eventually(lambda: "declared gone; started again" in zombie.lines)
    go.touch()
    eventually(lambda: row(made).status == "completed")
    assert row(made).worker_id.startswith("other-")
    assert (row(made).lease, row(made).result) == (2, "waited")
    after = enqueue("echo", 5)
    eventually(lambda: row(after).status == "completed")
    assert other.stop() == zombie.stop() == 0


def test_kills_lose_nothing(run_worker, tmp_path):
    """Workers die at random moments in the middle of 3,000 tasks; all of them complete."""
    file = tmp_path / "runs"
    enqueue_many(NewTask(type="append", payload={"file": str(file)}) for _ in range(3000))
    for done in (200, 900, 1600):
        victims = [run_worker() for _ in range(2)]
        eventually(lambda done=done: Task.objects.filter(status="completed").count() > done)
        for victim in victims:
            victim.stop(signal.SIGKILL)
    run_worker("--drain", "--concurrency", "8")
    run_worker()
    eventually(settled, 60)
    runs = Counter(line.split()[0] for line in file.read_text().splitlines())
    assert set(Task.objects.values_list("status", flat=True)) == {"completed"}
    assert set(runs) == {str(id) for id in Task.objects.values_list("id", flat=True)}
    again = sum(attempts - 1 for attempts in Task.objects.values_list("attempts", flat=True))
    assert sum(count - 1 for count in runs.values()) <= again


def test_cancelling_a_running_task_stops_its_handler(run_worker, tmp_path):
    started = tmp_path / "started"
    made = enqueue("wait", {"started": str(started), "go": str(tmp_path / "never")})
    worker = run_worker("--concurrency", "1").started()
    eventually(started.exists)
    operations.cancel([made.id], actor="a")
    after = enqueue("echo")
    eventually(lambda: row(after).status == "completed")
    assert row(made).status == "cancelled"
    assert "its outcome is thrown away" in worker.lines


def test_progress_is_shown_while_it_runs(run_worker, tmp_path):
    made = enqueue("progress", {"go": str(tmp_path / "go")})
    run_worker()
    eventually(lambda: row(made).progress == 50)
    assert row(made).progress_note == "half way"
    (tmp_path / "go").touch()
    eventually(lambda: row(made).status == "completed")
    assert row(made).progress == 100


@pytest.mark.parametrize(("kill", "attempts"), [("before", 2), ("after", 1)])
def test_an_effect_that_commits_with_its_task_happens_once(run_worker, kill, attempts):
    made = enqueue("atomic_effect", {"kill": kill})
    worker = run_worker()
    eventually(lambda: "worker died; its tasks were taken back" in worker.lines)
    eventually(settled)
    assert (row(made).status, row(made).attempts) == ("completed", attempts)
    assert Queue.objects.filter(name=f"effect-{made.id}").count() == 1


def test_slow_handlers_do_not_sit_on_the_tasks_of_others(run_worker, tmp_path):
    """A burst of quick tasks deepens the buffer; what then waits behind slow ones is given back."""
    enqueue_many(NewTask(type="echo") for _ in range(2000))
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    slow = enqueue_many(
        NewTask(type="wait", payload={"started": started, "go": go}) for _ in range(50)
    )
    run_worker("--concurrency", "2")
    eventually((tmp_path / "started").exists)
    eventually(lambda: Task.objects.filter(status="processing").count() == 2)
    (tmp_path / "go").touch()
    eventually(settled)
    assert {row(made).status for made in slow} == {"completed"}


def test_workers_survive_cut_connections(run_worker, sql):
    worker = run_worker().started()
    for n in range(5):
        made = enqueue("echo", n)
        eventually(lambda made=made: row(made).status == "completed")
        sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )
    final = enqueue("echo", "after")
    eventually(lambda: row(final).status == "completed")
    assert worker.stop() == 0


def test_no_task_stops_the_worker_that_runs_it(run_worker, sql):
    kinds = ["snooze", "retry", "output", "unprintable", "progress", "autocommit", "huge"]
    made = {kind: enqueue("poison", kind) for kind in kinds}
    [(huge_number,)] = sql("""SELECT * FROM create_task('poison', '{"n": 1e5000}')""")
    deep = "(repeat('[', 4000) || repeat(']', 4000))::jsonb"
    [(too_deep,)] = sql(f"SELECT * FROM create_task('poison', {deep})")
    after = [enqueue("echo", n, priority=-50) for n in range(20)]
    worker = run_worker("--concurrency", "2")
    eventually(lambda: {row(task).status for task in after} == {"completed"})
    eventually(lambda: not Task.objects.filter(status__in=["pending", "processing"]).exists())
    assert {kind: row(task).status for kind, task in made.items()} == {
        "snooze": "scheduled",
        "retry": "failed",
        "output": "completed",
        "unprintable": "failed",
        "progress": "completed",
        "autocommit": "completed",
        "huge": "failed",
    }
    assert not Queue.objects.filter(name="never-committed").exists()
    for id in (huge_number, too_deep):
        assert Task.objects.get(pk=id).error.startswith("BadPayload: The payload cannot be read")
    assert worker.stop() == 0


def test_what_a_rolled_back_completion_said_does_not_count(run_worker):
    made = enqueue("complete_then_fail")
    run_worker()
    eventually(lambda: row(made).status == "completed")
    assert [record["message"] for record in row(made).errors] == ["after all"]
    assert row(made).attempts == 2


def test_a_handler_that_locks_its_own_row_does_not_silence_the_worker(run_worker):
    made = enqueue("hold_row")
    run_worker()
    eventually(lambda: Task.objects.filter(status="processing").exists())
    oldest = timedelta(0)
    while Task.objects.get(pk=made.id).status == "processing":
        beat = Worker.objects.get().heartbeat_at
        oldest = max(oldest, timezone.now() - beat)
    assert row(made).status == "completed"
    assert oldest < timedelta(seconds=2)


def test_outcomes_wait_for_a_function_that_is_missing(run_worker, sql):
    """Nothing is claimed meanwhile: what could not be recorded would be done again."""
    worker = run_worker().started()
    sql("ALTER FUNCTION fail_tasks RENAME TO fail_tasks_gone")
    try:
        made = enqueue("fail", max_attempts=1)
        eventually(lambda: "a function of the database is missing or not granted" in worker.lines)
        later = enqueue("echo")
        assert (row(made).status, row(made).lease) == ("processing", 1)
    finally:
        sql("ALTER FUNCTION fail_tasks_gone RENAME TO fail_tasks")
    eventually(settled)
    assert [(row(t).status, row(t).lease) for t in (made, later)] == [
        ("failed", 1),
        ("completed", 1),
    ]


def test_a_worker_that_cannot_start_says_why_and_comes_up_later(run_worker, sql):
    sql("ALTER FUNCTION register_worker RENAME TO register_worker_gone")
    try:
        worker = run_worker()
        eventually(lambda: "worker process could not run" in worker.lines)
        assert "register_worker" in worker.lines
    finally:
        sql("ALTER FUNCTION register_worker_gone RENAME TO register_worker")
    worker.started()
    assert worker.stop() == 0


def test_a_rate_limit_is_kept_and_used(run_worker):
    """Neither more nor much less than it allows; a drain waits for the tokens it needs."""
    Queue.objects.filter(name="default").update(rate_limit=50, burst=1)
    enqueue_many(NewTask(type="echo") for _ in range(100))
    # Did it wait for the poll instead of the next token, it would not end.
    drain = run_worker("--drain", "--concurrency", "1", QUEUE_POLL_SECONDS="3600")
    assert drain.wait() == 0
    began = sorted(Task.objects.filter(status="completed").values_list("started_at", flat=True))
    assert len(began) == 100
    assert (began[-1] - began[0]).total_seconds() >= 1.9


def test_a_worker_signs_off_after_its_connections_were_cut(run_worker, sql, tmp_path):
    started = tmp_path / "started"
    made = enqueue("wait", {"started": str(started), "go": str(tmp_path / "never")})
    worker = run_worker("--grace", "0.3")
    eventually(started.exists)
    sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
    )
    assert worker.stop() == 0, worker.lines
    assert (row(made).status, row(made).attempts) == ("pending", 0)
    assert Worker.objects.get().status == "gone"


def test_log_lines_are_json_on_demand(run_worker):
    enqueue("echo")
    enqueue("fail", max_attempts=1)
    worker = run_worker("--drain", LOG_JSON="true")
    assert worker.wait() == 0
    events = [json.loads(line) for line in worker.lines.splitlines()]
    assert {"worker started polling", "task completed", "task attempt failed"} <= {
        e["event"] for e in events
    }
    failed = next(e for e in events if e["event"] == "task attempt failed")
    assert (failed["level"], failed["type"]) == ("warning", "fail")


def test_a_sweep_is_noted(run_worker):
    before = timezone.now()
    run_worker().started()
    eventually(lambda: Worker.objects.filter(swept_at__gte=before).exists())
    assert connection.is_usable()
