"""The database refuses what must not be, whoever writes, and its functions are the ones we read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import IntegrityError, ProgrammingError, connection, transaction

from queues.models import Queue, Task
from tests.settings import EMBEDDED

ROOT = Path(__file__).parent.parent
SQL_FOLDERS = [ROOT / "queues" / "sql", ROOT / "payments" / "sql"]

FUNCTIONS = """
SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid)
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
VIEWS = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'"
TRIGGERS = "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"


@pytest.mark.parametrize(
    "catalogue", [FUNCTIONS, TRIGGERS, VIEWS], ids=["functions", "triggers", "views"]
)
def test_live_sql_and_migrations_agree(sql, catalogue):
    migrated = dict(sql(catalogue))
    texts = [file.read_text() for folder in SQL_FOLDERS for file in sorted(folder.glob("*.sql"))]
    assert migrated
    for text in texts:
        sql(text)
    assert dict(sql(catalogue)) == migrated


def test_every_function_has_its_file_and_says_its_promise(sql):
    names = {row[0].split("(")[0] for row in sql(FUNCTIONS) + sql(VIEWS)}
    files = {file.stem: file.read_text() for folder in SQL_FOLDERS for file in folder.glob("*.sql")}
    assert set(files) == names
    assert [name for name, text in files.items() if not text.startswith("-- ")] == []


def test_functions_are_not_for_the_public(sql):
    open_to_all = sql(
        """SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
           AND has_function_privilege('public', p.oid, 'EXECUTE')
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"""
    )
    assert {name for (name,) in open_to_all} <= {"new_task_id"}


WORKERS_VERBS = [
    "enqueue_task('t')",
    """enqueue_tasks('[{"type": "t"}]')""",
    "create_task('t')",
    "register_worker('w')",
    "claim_tasks('w')",
    "claim_next_task()",
    "heartbeat('w')",
    "worker_idle('w')",
    "worker_busy('w')",
    "unregister_worker('w')",
    "complete_tasks('{}', '{}')",
    "complete_task(new_task_id(), 1)",
    "fail_tasks('{}', '{}', '{}')",
    "fail_task(new_task_id(), 1, 'e')",
    "release_tasks('{}', '{}')",
    "report_progress(new_task_id(), 1, 50)",
    "claim_job('w2')",
    "invoke_bubble_sync_processor()",
    "invoke_bubble_sync_retry()",
    "queue_overview",
]
USERS_VERBS = [
    "claim_next_task()",
    "claim_export_job()",
    "claim_job('w2')",
    "func_claim_available_task('w2')",
    "func_update_task_status(new_task_id()::text, 'Queued')",
    "complete_task_with_timing(new_task_id()::text, NULL)",
    "func_mark_task_failed(new_task_id()::text, 'e')",
    "func_initialize_tasks_table()",
    "func_migrate_tasks_for_task_type()",
    "caller_projects()",
    "request_projects()",
    "queue_overview",
    "tasks",
]
REFUSED = ["cancel_tasks('{}')", "retry_tasks('{}')", "rescue_lost()", "queues", "endpoints"]


@pytest.mark.parametrize(
    ("role", "verbs", "closed"),
    [
        ("opsconsole_worker", WORKERS_VERBS + USERS_VERBS[:-1], [*REFUSED, "tasks", "workers"]),
        ("service_role", WORKERS_VERBS + USERS_VERBS, REFUSED),
        (
            "authenticated",
            USERS_VERBS,
            [
                *REFUSED,
                "claim_tasks('w')",
                "enqueue_task('t')",
                "complete_tasks('{}', '{}')",
                "heartbeat('w')",
                "invoke_bubble_sync_retry()",
                "workers",
                "project_members",
            ],
        ),
        ("anon", [], [*REFUSED, *WORKERS_VERBS, *USERS_VERBS]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_role_may_call_its_verbs_and_nothing_else(sql, role, verbs, closed):
    sql(f"GRANT {role} TO CURRENT_USER")
    sql(f"SET LOCAL ROLE {role}")
    for verb in verbs:
        sql(f"SELECT * FROM {verb}")
    for refused in closed:
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            sql(f"SELECT * FROM {refused}")
    sql("RESET ROLE")


def test_definer_functions_pin_their_search_path(sql):
    rows = sql(
        "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )
    assert rows
    assert [
        name for name, config in rows if "search_path=pg_catalog, public, pg_temp" not in config
    ] == []


def test_task_ids_are_time_ordered_uuids_of_version_7(sql):
    ids = [
        row[0]
        for row in sql("SELECT new_task_id() FROM generate_series(1, 200), pg_sleep(0.00005)")
    ]
    assert len(set(ids)) == 200
    assert {id.version for id in ids} == {7}
    assert {id.variant for id in ids} == {"specified in RFC 4122"}
    [(early,)] = sql("SELECT new_task_id()")
    sql("SELECT pg_sleep(0.002)")
    [(late,)] = sql("SELECT new_task_id()")
    assert early < late
    [(made_at, now)] = sql(
        "SELECT to_timestamp(('x' || left(replace(new_task_id()::text, '-', ''), 12))::bit(48)::bigint / 1000.0),"
        " clock_timestamp()"
    )
    assert abs((now - made_at).total_seconds()) < 1


def test_a_bare_insert_by_a_foreign_client_is_a_whole_task(sql):
    [(id,)] = sql("INSERT INTO tasks (type, payload) VALUES ('mail', '{}') RETURNING id")
    task = Task.objects.get(pk=id)
    assert (task.status, task.queue_id, task.attempts, task.max_attempts) == (
        "pending",
        "default",
        0,
        5,
    )


def test_a_bare_insert_with_a_future_run_at_is_scheduled(sql):
    [(status,)] = sql(
        "INSERT INTO tasks (type, run_at) VALUES ('mail', now() + interval '1 hour') RETURNING status"
    )
    assert status == "scheduled"


@pytest.mark.parametrize(
    ("columns", "values", "constraint"),
    [
        ("type, status", "'t', 'banana'", "tasks_status_agrees_with_the_rest"),
        ("type, status", "'t', 'processing'", "tasks_status_agrees_with_the_rest"),
        ("type, status", "'t', 'completed'", "tasks_status_agrees_with_the_rest"),
        ("type, status", "'t', 'blocked'", "tasks_status_agrees_with_the_rest"),
        ("type, worker_id", "'t', 'w'", "tasks_status_agrees_with_the_rest"),
        ("type", "''", "tasks_type_1_to_200_characters"),
        ("type", "repeat('t', 201)", "tasks_type_1_to_200_characters"),
        ("type, priority", "'t', 101", "tasks_priority_range"),
        ("type, max_attempts", "'t', 0", "tasks_attempts_range"),
        ("type, timeout", "'t', '0'", "tasks_timeout_range"),
        ("type, timeout", "'t', '3000000 years'", "tasks_timeout_range"),
        ("type, errors", "'t', '{}'", "tasks_errors_is_an_array"),
        ("type, run_at", "'t', 'infinity'", "tasks_moments_in_calendar"),
        ("type, progress", "'t', 101", "tasks_progress_percent"),
        ("type, payload", "'t', to_jsonb(repeat('x', 1100000))", "tasks_payload_at_most_1_mib"),
        ("type, queue", "'t', 'nowhere'", 'queue "nowhere" does not exist'),
    ],
)
def test_impossible_rows_are_refused(sql, columns, values, constraint):
    with pytest.raises(IntegrityError, match=constraint):
        sql(f"INSERT INTO tasks ({columns}) VALUES ({values})")


LEGAL = {
    "blocked": {"pending", "scheduled", "cancelled"},
    "scheduled": {"pending", "cancelled", "completed", "failed"},
    "pending": {"processing", "scheduled", "cancelled", "completed", "failed"},
    "processing": {"completed", "failed", "cancelled", "pending", "scheduled"},
    "failed": {"pending", "blocked"},
    "cancelled": {"pending", "blocked"},
    "completed": set(),
}


@pytest.mark.parametrize("before", Task.Status.values)
def test_only_legal_transitions_pass(make_task, sql, before):
    for after in Task.Status.values:
        if after == before:
            continue
        task = make_task(before)
        change = {
            "status": after,
            "waits_on": int(after == "blocked"),
            "lease": task.lease + (after == "processing"),
            "worker_id": "w1" if after == "processing" else None,
            "started_at": task.created_at,
            "completed_at": task.created_at if after in Task.FINAL else None,
        }
        try:
            with transaction.atomic():
                Task.objects.filter(pk=task.pk).update(**change)
            passed = True
        except IntegrityError as error:
            assert "illegal transition" in str(error)
            passed = False
        assert passed == (after in LEGAL[before]), f"{before} -> {after}"


def test_a_lease_never_shrinks_or_jumps(make_task):
    task = make_task("processing")
    for lease in (0, 2):
        with (
            pytest.raises(IntegrityError, match=r"illegal transition|status_agrees"),
            transaction.atomic(),
        ):
            Task.objects.filter(pk=task.pk).update(lease=lease)


def test_default_queues_come_back_after_a_flush(transactional_db):
    assert Queue.objects.filter(name="default").exists()


def test_pythons_own_queue_module_is_not_hidden():
    code = "import queue, queues; queue.Queue; assert 'queues' not in queue.__file__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_embedded_server_is_the_one_we_ship(sql):
    [(version,)] = sql("SHOW server_version")
    assert int(re.match(r"\d+", version)[0]) >= 14
    assert not EMBEDDED or version.startswith("18."), "the wheel's PostgreSQL was not used"
    assert connection.pg_version >= 140000
