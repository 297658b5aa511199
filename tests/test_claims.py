"""The life of a task through the verbs of a worker, each fenced by its lease."""

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from queues import claims
from queues.claims import Failure, Success, WorkerGone
from queues.enqueue import enqueue
from queues.models import Queue, Task, Worker

pytestmark = pytest.mark.django_db


def claim(worker="w1", queues=None, limit=10):
    return claims.claim_tasks(worker, queues, limit)


def row(claimed_or_id):
    return Task.objects.get(pk=getattr(claimed_or_id, "id", claimed_or_id))


def test_a_claim_gives_what_a_worker_needs(make_worker):
    make_worker()
    enqueue("mail", {"to": "a@b.c"}, timeout=30, correlation_id="c", tenant_id="t")
    [task] = claim()
    assert (task.type, task.payload, task.lease, task.attempts) == ("mail", {"to": "a@b.c"}, 1, 1)
    assert (task.timeout, task.correlation_id, task.tenant_id) == (timedelta(seconds=30), "c", "t")
    stored = row(task)
    assert (stored.status, stored.worker_id, stored.lease) == ("processing", "w1", 1)
    assert stored.started_at is not None


def test_claims_follow_priority_then_age(make_task):
    now = timezone.now()
    ids = [
        make_task(priority=priority, run_at=now - timedelta(seconds=age)).id
        for priority, age in [(0, 1), (0, 9), (5, 1), (-5, 99)]
    ]
    assert [task.id for task in claim(limit=3)] == [ids[2], ids[1], ids[0]]
    assert [task.id for task in claim()] == [ids[3]]


def test_queues_are_tried_in_the_order_given():
    Queue.objects.bulk_create([Queue(name="a"), Queue(name="b")])
    first, second = enqueue("t", queue="a"), enqueue("t", queue="b")
    assert [task.id for task in claim(queues=["b", "a", "nowhere"])] == [second.id, first.id]


def test_only_due_tasks_are_claimed(make_task):
    for status in Task.Status.values:
        if status != "pending":
            make_task(status)
    assert claim() == []


def test_a_scheduled_task_is_claimed_once_it_is_due(make_task):
    task = make_task("scheduled")
    Task.objects.filter(pk=task.pk).update(run_at=timezone.now() - timedelta(seconds=1))
    assert [claimed.id for claimed in claim()] == [task.id]


def test_a_paused_queue_gives_nothing_until_it_resumes():
    enqueue("t")
    queue = Queue.objects.filter(name="default")
    queue.update(paused=True, paused_until=timezone.now() + timedelta(hours=1))
    assert claim() == []
    queue.update(paused_until=timezone.now() - timedelta(seconds=1))
    assert len(claim()) == 1


def test_a_capped_queue_never_runs_more():
    Queue.objects.filter(name="default").update(max_concurrent=2)
    for _ in range(5):
        enqueue("t")
    held = claim()
    assert len(held) == 2
    assert claim("w2") == []
    claims.complete_tasks([Success(held[0].id, held[0].lease)])
    assert len(claim("w2")) == 1


def test_an_unknown_worker_is_registered_as_ephemeral():
    enqueue("t")
    assert len(claim("gpu-7")) == 1
    assert Worker.objects.get(pk="gpu-7").kind == "ephemeral"


def test_a_draining_worker_gets_nothing_and_a_gone_one_is_told(make_worker):
    enqueue("t")
    make_worker("drains", status="draining")
    make_worker("gone", status="gone")
    assert claim("drains") == []
    with pytest.raises(WorkerGone):
        claim("gone")


def test_claim_next_task_serves_existing_callers(sql):
    made = enqueue("generate_care_plan", {"email": "a@b.c"})
    Queue.objects.create(name="other")
    enqueue("t", queue="other")
    rows = sql("SELECT id, type, status, worker_id FROM claim_next_task()")
    assert [(r[0], r[1], r[2]) for r in rows] == [(made.id, "generate_care_plan", "processing")]
    assert rows[0][3].startswith("anonymous-")
    assert sql("SELECT * FROM claim_next_task()") == []


def test_complete_records_once_and_answers_a_repeat():
    enqueue("t")
    [task] = claim()
    done = [Success(task.id, task.lease, {"n": 1}, "exports/a.zip")]
    assert claims.complete_tasks(done) == {task.id: "recorded"}
    assert claims.complete_tasks(done) == {task.id: "already"}
    stored = row(task)
    assert (stored.status, stored.result, stored.output_location) == (
        "completed",
        {"n": 1},
        "exports/a.zip",
    )
    assert stored.completed_at is not None


@pytest.mark.parametrize("result", [None, 0, False, "", [], {"a": None}, "null"])
def test_any_json_result_comes_back(result):
    enqueue("t")
    [task] = claim()
    claims.complete_tasks([Success(task.id, task.lease, result)])
    assert row(task).result == result


def test_a_result_with_nul_is_recorded_cleaned():
    enqueue("t")
    [task] = claim()
    assert claims.complete_tasks([Success(task.id, task.lease, {"a": "x\x00y\ud800"})]) == {
        task.id: "recorded"
    }
    assert row(task).result == {"a": "x\ufffdy\ufffd"}


def test_a_failed_attempt_returns_with_backoff_and_history():
    enqueue("t", max_attempts=2)
    [task] = claim()
    failure = Failure(task.id, task.lease, "ValueError", "bro\x00ken", "Traceback...", "fp")
    answer = claims.fail_tasks([failure])[task.id]
    assert (answer.outcome, answer.status) == ("recorded", "scheduled")
    stored = row(task)
    assert (stored.status, stored.attempts, stored.worker_id) == ("scheduled", 1, None)
    assert (stored.error, stored.error_fingerprint) == ("ValueError: bro\ufffdken", "fp")
    [record] = stored.errors
    assert (record["attempt"], record["worker"], record["class"]) == (1, "w1", "ValueError")
    assert record["traceback"] == "Traceback..."
    assert claims.fail_tasks([failure])[task.id].outcome == "already"
    Task.objects.filter(pk=task.id).update(run_at=timezone.now() - timedelta(seconds=1))
    [again] = claim()
    assert (again.lease, again.attempts) == (2, 2)
    assert claims.fail_tasks([Failure(again.id, again.lease, "E", "m")])[task.id].status == "failed"
    assert len(row(task).errors) == 2


def test_a_final_failure_uses_no_further_attempt():
    enqueue("t")
    [task] = claim()
    claims.fail_tasks([Failure(task.id, task.lease, "Fail", "never", final=True)])
    assert row(task).status == "failed"


def test_a_given_delay_is_kept():
    enqueue("t")
    [task] = claim()
    claims.fail_tasks([Failure(task.id, task.lease, "E", "m", delay=timedelta(hours=3))])
    assert (
        timedelta(hours=2, minutes=59)
        < row(task).run_at - timezone.now()
        < timedelta(hours=3, minutes=1)
    )


def test_backoff_is_exponential_jittered_and_capped(sql):
    for attempts, most in [(1, 10), (4, 80), (60, 3600)]:
        delays = [
            r[0].total_seconds()
            for r in sql("SELECT retry_delay(%s) FROM generate_series(1, 200)", attempts)
        ]
        assert 0 <= min(delays) < most * 0.2
        assert most * 0.8 < max(delays) <= most


def test_history_is_capped(make_task):
    task = make_task("processing", errors=[{"attempt": n} for n in range(25)], max_attempts=100)
    claims.fail_tasks([Failure(task.id, task.lease, "E", "m" * 9000, "t" * 90_000)])
    errors = row(task).errors
    assert len(errors) == 25
    assert errors[0] == {"attempt": 0}
    assert len(errors[-1]["message"]) == 4000
    assert len(errors[-1]["traceback"]) == 16000


def test_release_gives_the_attempt_back():
    enqueue("t")
    [task] = claim()
    assert claims.release_tasks([(task.id, task.lease)]) == {task.id: "recorded"}
    assert (row(task).status, row(task).attempts, row(task).lease) == ("pending", 0, 1)
    [again] = claim()
    claims.release_tasks([(again.id, again.lease)], delay=timedelta(minutes=1), reason="not now")
    assert (row(task).status, row(task).error) == ("scheduled", "not now")


def test_progress_is_shown_while_held():
    enqueue("t")
    [task] = claim()
    assert claims.report_progress(task.id, task.lease, 40, "40 of 100") == "recorded"
    assert (row(task).progress, row(task).progress_note) == (40, "40 of 100")
    assert claims.report_progress(task.id, task.lease + 1, 50) == "stale"


def test_every_report_of_a_zombie_is_stale():
    enqueue("t")
    [old] = claim("old")
    Worker.objects.filter(pk="old").update(status="gone")
    assert len(claims.query("SELECT * FROM rescue_lost()", [])) == 1
    Task.objects.update(run_at=timezone.now() - timedelta(seconds=1))
    [new] = claim("new")
    assert new.lease == old.lease + 1
    assert claims.complete_tasks([Success(old.id, old.lease, "zombie")]) == {old.id: "stale"}
    assert claims.fail_tasks([Failure(old.id, old.lease, "E", "m")])[old.id].outcome == "stale"
    assert claims.release_tasks([(old.id, old.lease)]) == {old.id: "stale"}
    assert claims.report_progress(old.id, old.lease, 1) == "stale"
    assert row(new).worker_id == "new"
    assert claims.complete_tasks([Success(new.id, new.lease, "ours")]) == {new.id: "recorded"}
    assert claims.complete_tasks([Success(old.id, old.lease, "zombie")]) == {old.id: "stale"}
    assert row(new).result == "ours"


def test_the_heartbeat_tells_what_was_lost(make_worker):
    make_worker()
    for _ in range(3):
        enqueue("t")
    kept, cancelled, rescued = claim()
    claims.query("SELECT * FROM cancel_tasks(%s)", [[cancelled.id]])
    claims.query("SELECT * FROM requeue_tasks(%s, NULL, true)", [[rescued.id]])
    pulse = claims.heartbeat("w1", [(t.id, t.lease, 0.0) for t in (kept, cancelled, rescued)])
    assert pulse.status == "alive"
    assert pulse.lost == {(cancelled.key, 1), (rescued.key, 1)}
    assert claims.heartbeat("nobody", []).status == "gone"


def test_the_heartbeat_moves_the_start_to_the_handlers(make_worker):
    make_worker()
    enqueue("t")
    [task] = claim()
    Task.objects.update(started_at=timezone.now() - timedelta(minutes=5))
    claims.heartbeat("w1", [(task.id, task.lease, 2.0)])
    assert timedelta(seconds=1) < timezone.now() - row(task).started_at < timedelta(seconds=10)


def test_a_claim_whose_answer_was_lost_goes_back_at_a_heartbeat(make_worker):
    make_worker()
    for _ in range(2):
        enqueue("t")
    known, unknown = claim()
    claims.heartbeat("w1", [(known.id, known.lease, None)])
    assert row(unknown).status == "processing"
    Task.objects.update(started_at=timezone.now() - timedelta(seconds=11))
    claims.heartbeat("w1", [(known.id, known.lease, None)])
    assert (row(unknown).status, row(unknown).attempts) == ("pending", 0)
    assert row(known).status == "processing"


def test_a_plain_heartbeat_of_a_foreign_worker_gives_nothing_back(make_worker, sql):
    make_worker()
    enqueue("t")
    [task] = claim()
    Task.objects.update(started_at=timezone.now() - timedelta(minutes=1))
    assert sql("SELECT status FROM heartbeat('w1')") == [("alive",)]
    assert row(task).status == "processing"


def test_a_payload_beyond_pythons_bounds_does_not_stop_a_claim(sql):
    sql("""SELECT * FROM create_task('t', '{"n": 1e5000}')""")
    sql("SELECT * FROM create_task('t', (repeat('[', 4000) || repeat(']', 4000))::jsonb)")
    enqueue("t", "fine")
    tasks = claim()
    assert len(tasks) == 3
    assert tasks[2].payload == "fine"


@pytest.mark.parametrize("verb", ["fail_tasks", "release_tasks"])
def test_an_absurd_delay_is_cut_to_a_year(sql, verb):
    enqueue("t")
    [task] = claim()
    arguments = {
        "fail_tasks": "ARRAY[%s], ARRAY[1::bigint], ARRAY['{}'::jsonb], ARRAY['9000 years'::interval]",
        "release_tasks": "ARRAY[%s], ARRAY[1::bigint], '9000 years'",
    }
    sql(f"SELECT * FROM {verb}({arguments[verb]})", task.id)
    assert row(task).run_at < timezone.now() + timedelta(days=367)


def test_the_late_report_of_a_rescued_task_is_stale(make_worker):
    enqueue("t")
    [task] = claim()
    Worker.objects.update(status="gone")
    claims.query("SELECT * FROM rescue_lost()", [])
    assert claims.fail_tasks([Failure(task.id, task.lease, "E", "m")])[task.id].outcome == "stale"


def test_a_finished_predecessor_releases_or_cancels_the_chain():
    first = enqueue("t", max_attempts=1)
    second = enqueue("t", after=[first.id])
    third = enqueue("t", after=[second.id])
    cleanup = enqueue("t", after=[first.id], on_failure="run")
    [task] = claim()
    claims.fail_tasks([Failure(task.id, task.lease, "E", "m")])
    assert [row(e.id).status for e in (first, second, third, cleanup)] == [
        "failed",
        "cancelled",
        "cancelled",
        "pending",
    ]
    assert str(second.id) in row(third.id).error


def test_a_dependant_runs_after_its_last_predecessor():
    parents = [enqueue("t") for _ in range(3)]
    child = enqueue("t", after=[p.id for p in parents])
    held = claim()
    claims.complete_tasks([Success(t.id, t.lease) for t in held[:2]])
    assert (row(child.id).status, row(child.id).waits_on) == ("blocked", 1)
    claims.complete_tasks([Success(held[2].id, held[2].lease)])
    assert row(child.id).status == "pending"


def test_rescue_takes_back_what_a_silent_worker_held(make_worker):
    make_worker("silent", heartbeat_at=timezone.now() - timedelta(seconds=31))
    make_worker("fresh", heartbeat_at=timezone.now())
    for worker in ("silent", "fresh", "ephemeral"):
        enqueue("t", {"by": worker})
        claim(worker, limit=1)
    claims.query("SELECT * FROM rescue_lost('2 seconds')", [])
    states = {t.payload["by"]: (t.status, t.lost, t.attempts) for t in Task.objects.all()}
    assert states["silent"] == ("scheduled", 1, 1)
    assert states["fresh"] == states["ephemeral"] == ("processing", 0, 1)
    assert Worker.objects.get(pk="silent").status == "gone"
    assert "its worker is gone" in Task.objects.get(payload__by="silent").error


@pytest.mark.parametrize(
    ("kind", "overdue", "rescued"),
    [("ephemeral", 1, True), ("process", 1, False), ("process", 31, True)],
)
def test_rescue_by_timeout(make_worker, kind, overdue, rescued):
    make_worker("w", kind=kind)
    enqueue("t", timeout=10)
    claim("w")
    Task.objects.update(started_at=timezone.now() - timedelta(seconds=10 + overdue))
    claims.query("SELECT * FROM rescue_lost()", [])
    assert (Task.objects.get().status == "scheduled") == rescued


def test_a_task_that_keeps_losing_its_worker_is_poison(make_task):
    child = enqueue("t", after=[make_task("processing", worker_id="x", lost=2, max_attempts=50).id])
    Worker.objects.filter(pk="x").update(status="gone")
    claims.query("SELECT * FROM rescue_lost()", [])
    assert Task.objects.get(worker_id="x").status == "failed"
    assert row(child.id).status == "cancelled"


def test_idle_callers_without_heartbeat_are_forgotten(make_worker):
    make_worker("edge_1", kind="ephemeral", last_seen_at=timezone.now() - timedelta(days=2))
    make_worker("edge_2", kind="ephemeral")
    claims.query("SELECT mark_workers_gone()", [])
    assert list(Worker.objects.values_list("id", flat=True)) == ["edge_2"]


def test_claims_refuse_other_isolation_levels(transactional_db):
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            with pytest.raises(Exception, match="needs READ COMMITTED"):
                cursor.execute("SELECT * FROM claim_tasks('w')")
        finally:
            cursor.execute("ROLLBACK")


def test_a_small_claim_whose_walk_is_slow_leaves_a_hint(sql):
    """Made slow by a trigger: what counts is that the walk is measured anew and its end remembered."""
    sql("ALTER FUNCTION claim_heads(text, integer) RENAME TO claim_heads_itself")
    sql(
        "CREATE FUNCTION claim_heads(text, integer) RETURNS jsonb LANGUAGE sql AS"
        " $$SELECT to_jsonb(set_config('opsconsole.asked', $1, true))$$"
    )
    sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END$$"
    )
    enqueue("quick")
    claim()
    [(asked,)] = sql("SELECT current_setting('opsconsole.asked', true)")
    assert not asked
    sql("CREATE TRIGGER slow BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION slow()")
    enqueue("slow")
    claim()
    assert sql("SELECT current_setting('opsconsole.asked', true)") == [("default",)]


def test_a_claim_from_no_queue_tells_the_gone_and_seats_the_new(make_worker):
    make_worker("w1", status="gone")
    with pytest.raises(WorkerGone):
        claim(queues=["nowhere"])


def test_a_failure_reported_twice_without_a_class_is_known(sql):
    enqueue("t")
    [task] = claim()
    report = f"SELECT fail_task('{task.id}', {task.lease}, 'broken')"
    assert [sql(report), sql(report)] == [[("recorded",)], [("already",)]]


def test_what_waits_behind_a_claims_hint_is_found(sql):
    """A pinned vacuum horizon makes a session remember where to begin; see claim_heads.sql."""

    def hint(rescan_at, again_at):
        head = [0, "2098-01-01", "00000000-0000-0000-0000-000000000000"]
        heads = {"rescan_at": rescan_at, "again_at": again_at, "at": {"0": head}}
        sql(
            "SELECT set_config('opsconsole.claim_heads', %s, false)",
            json.dumps({"default": heads}),
        )

    try:
        made = [enqueue("t").id]
        hint(rescan_at="2098-01-01", again_at="2000-01-01")
        assert [task.id for task in claim()] == made, "a claim that finds nothing looks again"
        made = [enqueue("t").id]
        hint(rescan_at="2098-01-01", again_at="2098-01-01")
        assert claim() == [], "but no more often than it can afford"
        hint(rescan_at="2000-01-01", again_at="2098-01-01")
        assert [task.id for task in claim()] == made
    finally:
        sql("SELECT set_config('opsconsole.claim_heads', '', false)")
