"""The doctor knows what is wrong with our functions and what mends it; a worker says so, seldom."""

from io import StringIO
from uuid import uuid4

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from structlog.testing import capture_logs

from opsconsole import doctor
from queues import claims, functions
from queues.enqueue import enqueue
from queues.models import Endpoint, Task, Worker
from queues.worker.faults import RecurringFault
from tests.conftest import database_url, eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _whole_again(transactional_db, sql):
    yield
    sql("DROP SCHEMA IF EXISTS elsewhere CASCADE")
    functions.restore([f.name for f in functions.expected()], replace=True)


BREAKS = {
    "missing": "DROP FUNCTION claim_export_job",
    "wrong signature": "DROP FUNCTION claim_export_job;"
    "CREATE FUNCTION claim_export_job(p_max integer) RETURNS SETOF tasks LANGUAGE sql"
    " AS 'SELECT * FROM tasks'",
    "wrong schema": "CREATE SCHEMA elsewhere;ALTER FUNCTION claim_export_job SET SCHEMA elsewhere",
    "not granted": "REVOKE ALL ON FUNCTION claim_export_job FROM service_role",
    "outdated": "DO $do$ BEGIN EXECUTE replace("
    "pg_get_functiondef('claim_export_job(integer)'::regprocedure),"
    " 'AS $function$', E'AS $function$ -- older\\n'); END $do$",
}
REMEDIES = {
    "missing": "manage.py restore_functions claim_export_job",
    "wrong signature": "manage.py restore_functions --replace claim_export_job",
    "wrong schema": "ALTER FUNCTION elsewhere.claim_export_job(p_max_concurrent integer)"
    " SET SCHEMA public;",
    "not granted": "GRANT EXECUTE ON FUNCTION public.claim_export_job(p_max_concurrent integer)"
    " TO service_role;",
    "outdated": "manage.py restore_functions claim_export_job",
}


def test_a_migrated_database_has_no_findings():
    assert functions.findings() == []
    assert len(functions.expected()) > 60


@pytest.mark.parametrize("kind", BREAKS)
def test_each_fault_is_found_and_its_remedy_mends_it(sql, kind):
    sql(BREAKS[kind])
    [finding] = functions.findings()
    assert (finding.function, finding.kind) == ("claim_export_job", kind)
    assert finding.remedy == REMEDIES[kind]
    told = StringIO()
    with pytest.raises(CommandError, match="1 function is not as it should be"):
        call_command("doctor", stdout=StringIO(), stderr=told)
    assert told.getvalue().startswith(f"{kind}: ")
    assert f"Run: {finding.remedy}\n" in told.getvalue()
    if finding.remedy.startswith("manage.py "):
        call_command(*finding.remedy.split()[1:], stdout=StringIO())
    else:
        sql(finding.remedy)
    assert functions.findings() == []
    assert sql("SELECT * FROM claim_export_job()") == []


@pytest.mark.parametrize(
    "change",
    [
        "CREATE FUNCTION claim_job(p_worker_id text, n integer) RETURNS void LANGUAGE sql AS ''",
        "DROP FUNCTION func_initialize_tasks_table;"
        "CREATE FUNCTION func_initialize_tasks_table(p_table_name text) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT true'",
        "DROP FUNCTION create_task; CREATE FUNCTION create_task(type text, payload jsonb DEFAULT '{}')"
        " RETURNS uuid LANGUAGE sql AS 'SELECT new_task_id()'",
    ],
    ids=["overloaded", "without its default", "another result"],
)
def test_signatures_are_compared_wholly(sql, change):
    sql(change)
    [finding] = functions.findings()
    assert finding.kind == "wrong signature"
    call_command(*finding.remedy.split()[1:], stdout=StringIO())
    assert functions.findings() == []


def test_an_unknown_function_cannot_be_restored():
    with pytest.raises(CommandError, match="drop_all is no function of OpsConsole"):
        call_command("restore_functions", "drop_all")


def test_the_doctor_verifies_without_claiming(sql):
    made = enqueue("t")
    out = StringIO()
    call_command("doctor", stdout=out)
    assert out.getvalue().endswith("tasks, transactions and claim_next_task() answer.\n")
    assert Task.objects.get(pk=made.id).attempts == 0
    assert not Worker.objects.exists()
    sql("ALTER TABLE transactions RENAME TO away")
    try:
        [problem] = doctor.verify()
    finally:
        sql("ALTER TABLE away RENAME TO transactions")
    assert problem.startswith("the table transactions does not answer: relation")


def test_postgrest_is_told_to_read_the_schema_again():
    with psycopg.connect(database_url(), autocommit=True) as listener:
        listener.execute("LISTEN pgrst")
        call_command("migrate", verbosity=0)
        told = [n.payload for n in listener.notifies(timeout=5, stop_after=1)]
        functions.restore(["claim_job"])
        told += [n.payload for n in listener.notifies(timeout=5, stop_after=1)]
    assert told == ["reload schema", "reload schema"]


def test_migrate_writes_down_the_endpoint_that_the_settings_name(settings):
    call_command("migrate", verbosity=0)
    assert not Endpoint.objects.exists()
    settings.BUBBLE_SYNC_URL, settings.BUBBLE_SYNC_SECRET = "https://a.example/sync", "SYNC"
    call_command("migrate", verbosity=0)
    settings.BUBBLE_SYNC_URL = settings.BUBBLE_SYNC_SECRET = ""
    call_command("migrate", verbosity=0)
    assert Endpoint.objects.values_list("name", "url", "secret").get() == (
        "bubble_sync",
        "https://a.example/sync",
        "SYNC",
    )


def test_a_missing_function_is_told_once_a_minute_with_its_remedy(sql):
    sql("ALTER FUNCTION report_progress RENAME TO away")
    fault = RecurringFault("cannot claim, trying again")
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(DatabaseError) as error:
                claims.report_progress(uuid4(), 1, 5)
            fault.report(error.value, pause=0.1)
    sql("ALTER FUNCTION away RENAME TO report_progress")
    [line] = logs
    assert line["remedy"] == "manage.py restore_functions report_progress"
    with capture_logs() as logs:
        for _ in range(2):
            fault.report(DatabaseError("the connection is lost"), pause=0.1)
    assert [(line["error"], line["pause"]) for line in logs] == [
        ("the connection is lost", 0.1)
    ] * 2


def test_a_worker_without_its_claim_function_warns_once_and_recovers(run_worker, sql):
    worker = run_worker().started()
    [(signature,)] = sql("SELECT 'claim_tasks'::regproc::oid::regprocedure::text")
    sql(f"ALTER FUNCTION {signature} RENAME TO away")
    try:
        eventually(lambda: "restore_functions claim_tasks" in worker.lines)
        made = enqueue("echo")
        said = len(worker.lines)
        seen = Worker.objects.get().heartbeat_at
        eventually(lambda: Worker.objects.get().heartbeat_at > seen)
    finally:
        sql("ALTER FUNCTION away RENAME TO claim_tasks")
    eventually(lambda: Task.objects.get(pk=made.id).status == "completed")
    assert worker.lines[said:].count("restore_functions claim_tasks") == 0
    assert worker.lines.count("restore_functions claim_tasks") == 1
    assert worker.stop() == 0
