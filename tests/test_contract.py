"""The functions of existing callers, called as they call them: from processes that import nothing of
ours, under the role service_role."""

import subprocess
import sys
from datetime import timedelta
from uuid import UUID

import pytest

from queues import claims
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import ProjectMember, Queue, Task, Worker
from tests.conftest import database_url, eventually
from tests.foreign import COMPLETE, FAIL, UPDATE, Refused, psql

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMS = {
    "claim_next_task": ("default", "SELECT * FROM claim_next_task()"),
    "claim_export_job": ("exports", "SELECT * FROM claim_export_job(p_max_concurrent => 3)"),
    "claim_job": ("jobs", "SELECT * FROM claim_job(p_worker_id => 'worker_12345')"),
    "func_claim_available_task": (
        "gpu",
        "SELECT * FROM func_claim_available_task(worker_id_param => 'gpu-20250723_145828-38ab706b')",
    ),
}
FINISHES = {
    "claim_next_task": (COMPLETE, "completed"),
    "claim_export_job": ("SELECT func_update_task_status(%s, 'Complete')", "completed"),
    "claim_job": (FAIL, "failed"),
    "func_claim_available_task": ("SELECT func_update_task_status(%s, 'Cancelled')", "cancelled"),
}


def row(id):
    return Task.objects.get(pk=id)


def test_the_signatures_are_those_that_callers_use(sql):
    asked = """SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
                 FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY (%s)"""
    signatures = {
        "claim_export_job": (
            "p_max_concurrent integer DEFAULT 3",
            "TABLE(id uuid, organization_id text, work_record_id text, export_type text, filters jsonb,"
            " created_by text, created_at timestamp with time zone, started_at timestamp with time zone)",
        ),
        "claim_job": (
            "p_worker_id text",
            "TABLE(id uuid, tenant_id text, type text, status text, payload jsonb, result jsonb,"
            " worker_id text, attempts integer, next_retry_at timestamp with time zone,"
            " created_at timestamp with time zone, completed_at timestamp with time zone)",
        ),
        "claim_next_task": ("", "SETOF tasks"),
        "create_task": ("type text, payload jsonb DEFAULT '{}'::jsonb", "SETOF uuid"),
        "func_claim_available_task": (
            "worker_id_param text",
            "TABLE(id uuid, status text, attempts integer, worker_id text,"
            " generation_started_at timestamp with time zone, task_data jsonb,"
            " created_at timestamp with time zone, task_type text)",
        ),
        "func_update_task_status": (
            "p_task_id text, p_status text, p_table_name text DEFAULT 'tasks'::text,"
            " p_output_location text DEFAULT NULL::text",
            "boolean",
        ),
        "complete_task_with_timing": ("p_task_id text, p_output_location text", "boolean"),
        "func_mark_task_failed": ("p_task_id text, p_error_message text", "boolean"),
        "func_initialize_tasks_table": ("p_table_name text DEFAULT 'tasks'::text", "boolean"),
        "func_migrate_tasks_for_task_type": ("p_table_name text DEFAULT 'tasks'::text", "boolean"),
        "invoke_bubble_sync_processor": ("", "void"),
        "invoke_bubble_sync_retry": ("", "void"),
    }
    found = {name: tuple(rest) for name, *rest in sql(asked, list(signatures))}
    assert found == signatures


@pytest.mark.parametrize("name", CLAIMS)
def test_a_caller_killed_between_claim_and_finish_loses_its_task_by_timeout(foreign, sql, name):
    queue, claim = CLAIMS[name]
    finish, outcome = FINISHES[name]
    made = enqueue("t", queue=queue, timeout=0.3)
    killed = foreign()
    [held] = killed(claim)
    assert held["id"] == str(made.id)
    killed("BEGIN")
    assert killed.value(finish, held["id"]) is True
    killed.kill()

    rescued = eventually(lambda: sql("SELECT id, reason FROM rescue_lost()"))
    assert rescued == [(made.id, "its timeout has passed")]
    task = row(made.id)
    assert (task.status, task.attempts, task.lost, task.worker_id) == ("scheduled", 1, 1, None)
    sql("UPDATE tasks SET run_at = now()")
    other = foreign()
    [again] = other(claim)
    assert again["id"] == held["id"]
    assert other.value(finish, held["id"]) is True
    task = row(made.id)
    assert (task.status, task.lease, task.attempts) == (outcome, 2, 2)
    assert other(claim) == []


def test_a_caller_killed_before_its_commit_has_created_nothing(foreign):
    killed = foreign()
    assert UUID(killed.value("SELECT * FROM create_task('mail', '{\"to\": \"a@b.c\"}')"))
    killed("BEGIN")
    killed("SELECT * FROM create_task('lost')")
    killed.kill()
    assert foreign().value("SELECT count(*) FROM claim_next_task()") == 1
    assert list(Task.objects.values_list("type", "payload")) == [("mail", {"to": "a@b.c"})]


def test_an_export_is_given_with_what_its_payload_says(foreign):
    payload = {"work_record_id": "r1", "export_type": "pdf", "filters": {"a": 1}, "created_by": "u"}
    made = enqueue("proof_pack", payload, queue="exports", tenant_id="org")
    [job] = foreign()("SELECT * FROM claim_export_job()")
    assert (job.pop("id"), bool(job.pop("created_at")), bool(job.pop("started_at"))) == (
        str(made.id),
        True,
        True,
    )
    assert job == payload | {"organization_id": "org"}
    enqueue("proof_pack", queue="exports")
    [job] = foreign()("SELECT * FROM claim_export_job(NULL)")
    assert (job["export_type"], job["filters"], job["work_record_id"]) == ("proof_pack", {}, None)


EXPORTERS = """
import sys, threading, time, psycopg

def export():
    with psycopg.connect(sys.argv[1], autocommit=True, options="-c role=service_role") as session:
        ready.wait()
        while time.monotonic() < deadline:
            jobs = session.execute("SELECT id FROM claim_export_job(3)").fetchall()
            if jobs:
                session.execute("SELECT pg_sleep(random() * 0.01)")
                session.execute("SELECT complete_task_with_timing(%s, NULL)", [str(jobs[0][0])])
            elif not session.execute(
                "SELECT count(*) FROM tasks WHERE queue = 'exports' AND status = 'pending'"
            ).fetchone()[0]:
                return

deadline = time.monotonic() + 60
ready = threading.Barrier(36)
threads = [threading.Thread(target=export) for _ in range(36)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_concurrent_exporters_never_exceed_the_cap_of_an_organization(foreign, sql):
    tenants = ["org-a", "org-b", None]
    enqueue_many(
        NewTask(type="proof", queue="exports", tenant_id=t) for _ in range(50) for t in tenants
    )
    foreign()
    done = subprocess.run(
        [sys.executable, "-I", "-c", EXPORTERS, database_url()], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Task.objects.filter(status="completed", lease=1).count() == 150
    most = sql(
        """SELECT max(n) FROM (SELECT a.tenant_id, count(*) AS n FROM tasks a JOIN tasks b
             ON b.tenant_id IS NOT DISTINCT FROM a.tenant_id
            AND b.started_at <= a.started_at AND b.completed_at > a.started_at
            GROUP BY a.tenant_id, a.id) at_once GROUP BY tenant_id"""
    )
    assert most == [(3,)] * 3


def test_exports_respect_the_queues_own_cap_and_its_pause(foreign):
    enqueue_many(NewTask(type="t", queue="exports", tenant_id=str(n)) for n in range(4))
    exports = Queue.objects.filter(name="exports")
    exports.update(max_concurrent=2)
    caller = foreign()
    assert [len(caller("SELECT id FROM claim_export_job()")) for _ in range(3)] == [1, 1, 0]
    exports.update(max_concurrent=None, paused=True)
    assert caller("SELECT id FROM claim_export_job()") == []
    exports.update(paused=False)
    assert caller("SELECT id FROM claim_export_job(0)") == []
    assert len(caller("SELECT id FROM claim_export_job()")) == 1


def test_a_job_looks_as_its_callers_know_it(foreign, sql):
    made = enqueue("test_job", {"test": "data"}, queue="jobs", tenant_id="tenant")
    caller = foreign()
    [job] = caller("SELECT * FROM claim_job('worker-test-2')")
    assert list(job) == [
        "id",
        "tenant_id",
        "type",
        "status",
        "payload",
        "result",
        "worker_id",
        "attempts",
        "next_retry_at",
        "created_at",
        "completed_at",
    ]
    del job["created_at"]
    assert job == {
        "id": str(made.id),
        "tenant_id": "tenant",
        "type": "test_job",
        "status": "processing",
        "payload": {"test": "data"},
        "result": {},
        "worker_id": "worker-test-2",
        "attempts": 1,
        "next_retry_at": None,
        "completed_at": None,
    }
    claims.release_tasks([(made.id, 1)], delay=timedelta(hours=1))
    assert caller("SELECT * FROM claim_job('worker-test-2')") == []
    sql("UPDATE tasks SET run_at = now(), attempts = 1")
    [job] = caller("SELECT * FROM claim_job('worker-test-3')")
    assert (job["attempts"], job["next_retry_at"] is None) == (2, False)


@pytest.mark.parametrize("id", ["gpu-1", "edge_1a2b", "worker_12345", "test_worker_abc123"])
def test_any_unknown_worker_is_registered(foreign, id):
    made = enqueue("travel_segment", {"n": 1}, queue="gpu")
    [task] = foreign()("SELECT * FROM func_claim_available_task(%s)", id)
    assert list(task) == [
        "id",
        "status",
        "attempts",
        "worker_id",
        "generation_started_at",
        "task_data",
        "created_at",
        "task_type",
    ]
    assert (task["id"], task["status"], task["attempts"]) == (str(made.id), "In Progress", 1)
    assert (task["worker_id"], task["task_data"], task["task_type"]) == (
        id,
        {"n": 1},
        "travel_segment",
    )
    assert Worker.objects.get(pk=id).kind == "ephemeral"


@pytest.mark.parametrize("id", [None, "", "  "])
def test_a_caller_without_a_name_is_named_after_its_session(foreign, id):
    enqueue("t", queue="jobs")
    [job] = foreign()("SELECT * FROM claim_job(%s)", id)
    assert job["worker_id"].startswith("anonymous-")


def test_a_task_is_given_only_when_its_predecessor_is_complete(foreign):
    first = enqueue("segment", queue="gpu")
    second = enqueue("stitch", queue="gpu", after=[first.id])
    caller = foreign()
    claim = "SELECT id FROM func_claim_available_task('gpu-1')"
    assert caller(claim) == [{"id": str(first.id)}]
    assert caller(claim) == []
    assert caller.value(UPDATE, str(second.id), "Complete") is False
    assert caller.value(COMPLETE, str(first.id)) is True
    assert caller(claim) == [{"id": str(second.id)}]


def test_a_claim_that_is_not_yet_committed_hides_no_other_task(foreign):
    made = [str(enqueue("t", queue="jobs", tenant_id="p").id) for _ in range(2)]
    ProjectMember.objects.create(project_id="p", user_id="u")
    claim = "SELECT id FROM claim_job(%s)"
    for role in ("service_role", "authenticated"):
        first, second = foreign(role, {"sub": "u"}), foreign(role, {"sub": "u"})
        first("BEGIN")
        assert [first.value(claim, "w1"), second.value(claim, "w2")] == made
        first("ROLLBACK")
        second("SELECT func_update_task_status(%s, 'Queued')", made[1])


def test_the_two_validators_say_what_is_wrong(foreign, sql):
    caller = foreign()
    for validate in ("func_initialize_tasks_table", "func_migrate_tasks_for_task_type"):
        assert caller.value(f"SELECT {validate}()") is True
        sql("ALTER TABLE tasks RENAME COLUMN output_location TO elsewhere")
        try:
            with pytest.raises(Refused, match="the table tasks lacks: output_location text"):
                caller(f"SELECT {validate}()")
        finally:
            sql("ALTER TABLE tasks RENAME COLUMN elsewhere TO output_location")


def test_psql_alone_runs_a_task_from_beginning_to_end(foreign):
    foreign()
    made = psql("SELECT * FROM create_task('generate_care_plan', '{\"email\": \"a@b.c\"}')")
    assert made.stderr == ""
    claimed = psql("SELECT id, type, status, payload ->> 'email' FROM claim_next_task()")
    assert claimed.stdout == f"{made.stdout.strip()}|generate_care_plan|processing|a@b.c\n"
    done = psql(f"SELECT complete_task_with_timing('{made.stdout.strip()}', 'plans/1.pdf')")
    assert done.stdout == "t\n"
    assert psql("SELECT * FROM claim_next_task()").stdout == ""
    assert row(made.stdout.strip()).output_location == "plans/1.pdf"


def test_two_of_psql_claim_one_job_and_one_gets_it(foreign, at_once):
    foreign()
    made = enqueue("t", queue="jobs")
    claim = "SELECT id FROM claim_job('worker-{}')"
    answers = at_once(*[lambda n=n: psql(claim.format(n)).stdout for n in range(2)])
    assert sorted(answers) == ["", f"{made.id}\n"]
