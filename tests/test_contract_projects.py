"""Who reaches which tasks: users their projects', the service everything, strangers nothing."""

import json

import pytest

from queues.enqueue import enqueue
from queues.models import Endpoint, ProjectMember, Queue, Task
from tests.conftest import database_url
from tests.foreign import Refused

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMS = {
    "default": "SELECT id FROM claim_next_task()",
    "exports": "SELECT id FROM claim_export_job()",
    "jobs": "SELECT id FROM claim_job('w-user')",
    "gpu": "SELECT id FROM func_claim_available_task('gpu-user')",
}


@pytest.fixture
def members(transactional_db):
    """Anna belongs to the projects a and shared, Ben to b and shared."""
    for user, project in [("anna", "a"), ("anna", "shared"), ("ben", "b"), ("ben", "shared")]:
        ProjectMember.objects.create(user_id=user, project_id=project)


@pytest.fixture
def user(foreign, members):
    return lambda sub: foreign("authenticated", {"sub": sub, "role": "authenticated"})


@pytest.mark.parametrize("queue", CLAIMS)
def test_each_user_claims_the_tasks_of_its_projects_only(user, foreign, queue):
    made = {t: str(enqueue("t", queue=queue, tenant_id=t).id) for t in ("b", "a", "shared", "c")}
    nobodys = str(enqueue("t", queue=queue).id)
    anna, ben = user("anna"), user("ben")
    assert anna(CLAIMS[queue]) == [{"id": made["a"]}]
    assert anna(CLAIMS[queue]) == [{"id": made["shared"]}]
    assert anna(CLAIMS[queue]) == []
    assert ben(CLAIMS[queue]) == [{"id": made["b"]}]
    assert ben(CLAIMS[queue]) == []
    service = foreign()
    assert [service(CLAIMS[queue]) for _ in range(3)] == [
        [{"id": made["c"]}],
        [{"id": nobodys}],
        [],
    ]


@pytest.mark.parametrize(
    "settle",
    [
        "SELECT func_update_task_status(%s, 'Cancelled')",
        "SELECT complete_task_with_timing(%s, 'x')",
        "SELECT func_mark_task_failed(%s, 'e')",
    ],
)
def test_each_user_settles_the_tasks_of_its_projects_only(user, make_task, settle):
    theirs, mine = make_task("processing", tenant_id="b"), make_task(tenant_id="a")
    nobodys = make_task("processing")
    anna = user("anna")
    assert anna.value(settle, str(theirs.id)) is False
    assert anna.value(settle, str(nobodys.id)) is False
    assert anna.value(settle, str(mine.id)) is True
    assert set(Task.objects.filter(status="processing").values_list("id", flat=True)) == {
        theirs.id,
        nobodys.id,
    }


def test_each_user_reads_the_tasks_of_its_projects_only(user, make_task):
    for project in ("a", "b", "shared", "c", None):
        make_task(tenant_id=project)
    seen = "SELECT DISTINCT tenant_id AS t FROM tasks ORDER BY 1"
    assert user("anna")(seen) == [{"t": "a"}, {"t": "shared"}]
    assert user("ben")(seen) == [{"t": "b"}, {"t": "shared"}]
    assert user("anna").value("SELECT sum(count)::int FROM queue_overview") == 2
    with pytest.raises(Refused, match="permission denied"):
        user("anna")("UPDATE tasks SET tenant_id = 'a'")


@pytest.mark.parametrize(
    "claims",
    [
        "",
        "{",
        "[]",
        "7",
        '"anna"',
        "{}",
        '{"sub": null}',
        '{"sub": "stranger"}',
        '{"sub": ["anna"]}',
        '{"sub": "\\u0000"}',
        '{"user": "anna"}',
        "[" * 100_000,
    ],
    ids=lambda claims: claims[:20] or "none",
)
def test_claims_that_name_nobody_reach_nothing(foreign, members, make_task, claims):
    task = make_task(tenant_id="a")
    stranger = foreign("authenticated", "")
    if claims:
        stranger("SELECT length(set_config('request.jwt.claims', %s, false))", claims)
    assert stranger("SELECT * FROM tasks") == []
    assert stranger(CLAIMS["default"]) == []
    assert stranger.value("SELECT complete_task_with_timing(%s, NULL)", str(task.id)) is False
    with pytest.raises(Refused, match="not a project of yours") as refused:
        stranger("SELECT * FROM create_task('t', '{\"project_id\": \"a\"}')")
    assert refused.value.sqlstate == "42501"


def test_a_user_creates_tasks_in_its_projects_only(user, members):
    anna = user("anna")
    create = "SELECT * FROM create_task('t', %s)"
    id = anna.value(create, json.dumps({"project_id": "shared"}))
    assert Task.objects.get(pk=id).tenant_id == "shared"
    for payload in ({"project_id": "b"}, {}):
        with pytest.raises(Refused, match="not a project of yours"):
            anna(create, json.dumps(payload))
    ProjectMember.objects.filter(user_id="anna", project_id="shared").delete()
    assert Task.objects.get(pk=anna.value(create, "{}")).tenant_id == "a"


def test_a_login_that_inherits_a_users_rights_sees_no_more(foreign, sql, make_task):
    make_task(tenant_id="a")
    sql("DROP ROLE IF EXISTS contract_login")
    sql("CREATE ROLE contract_login LOGIN PASSWORD 'contract-login' IN ROLE authenticated")
    try:
        address = database_url().split("@", 1)[1]
        login = foreign("", "", f"postgresql://contract_login:contract-login@{address}")
        assert login.value("SELECT current_setting('role')") == "none"
        assert login("SELECT * FROM claim_next_task()") == []
        sql("GRANT opsconsole_worker TO contract_login")
        [task] = login("SELECT * FROM claim_next_task()")
        assert task["worker_id"].startswith("anonymous-")
        login.kill()
    finally:
        sql("DROP ROLE contract_login")


def test_the_service_reads_and_writes_tasks_directly(foreign):
    service = foreign()
    id = service.value(
        "INSERT INTO tasks (type, payload, tenant_id) VALUES ('mail', '{}', 'a') RETURNING id"
    )
    after = enqueue("after", after=[id])
    cancelled = enqueue("cancelled", after=[after.id])
    service("SELECT * FROM claim_next_task()")
    write = "UPDATE tasks SET status = %s, completed_at = now() WHERE id = %s"
    service(write, "completed", id)
    assert Task.objects.get(pk=after.id).status == "pending"
    service(write, "failed", str(after.id))
    assert Task.objects.get(pk=cancelled.id).status == "cancelled"
    with pytest.raises(Refused, match="illegal transition"):
        service(write, "failed", id)
    with pytest.raises(Refused, match="permission denied"):
        service("DELETE FROM tasks")


def test_a_direct_write_and_a_verb_settle_a_dependant_once(foreign):
    first, second = enqueue("a"), enqueue("b")
    last = enqueue("c", after=[first.id, second.id])
    service = foreign()
    service(
        "UPDATE tasks SET status = 'completed', completed_at = now() WHERE id = %s", str(first.id)
    )
    assert Task.objects.get(pk=last.id).waits_on == 1
    assert service.value("SELECT complete_task_with_timing(%s, NULL)", str(second.id)) is True
    assert Task.objects.get(pk=last.id).status == "pending"


def test_the_service_keeps_the_members_of_projects(foreign):
    foreign()("INSERT INTO project_members (project_id, user_id) VALUES ('p', 'u')")
    enqueue("t", tenant_id="p")
    assert len(foreign("authenticated", {"sub": "u"})(CLAIMS["default"])) == 1


def test_the_overview_counts_by_status_operation_and_queue(foreign, make_task):
    first = make_task(type="INSERT", queue_id="sync")
    last = make_task(type="INSERT", queue_id="sync")
    make_task("failed", type="UPDATE", queue_id="sync")
    rows = foreign("opsconsole_worker")("SELECT * FROM queue_overview")
    assert [(r["status"], r["operation"], r["queue"], r["count"]) for r in rows] == [
        ("failed", "UPDATE", "sync", 1),
        ("pending", "INSERT", "sync", 2),
    ]
    assert rows[1]["oldest_item"] == str(first.created_at)
    assert rows[1]["newest_item"] == str(last.created_at)


PROCESS, RETRY = "SELECT invoke_bubble_sync_processor()", "SELECT invoke_bubble_sync_retry()"


@pytest.fixture
def endpoint(transactional_db):
    return Endpoint.objects.create(
        name="bubble_sync", url="https://sync.example/functions/v1/bubble_sync", secret="SYNC"
    )


def test_nothing_due_is_a_notice_and_nothing_else(foreign, endpoint, make_task):
    make_task("scheduled", queue_id="sync")
    make_task(queue_id="default")
    caller = foreign()
    for invoke, name in ((PROCESS, "bubble_sync_processor"), (RETRY, "bubble_sync_retry")):
        caller(invoke)
        assert caller.notices == [f"NOTICE: [{name}] no items are due in queue sync"]
    assert not Task.objects.filter(type="http_request").exists()


@pytest.mark.parametrize(
    ("attempts", "invoke", "other", "body"),
    [
        (
            0,
            PROCESS,
            RETRY,
            {"action": "process_queue_data_api", "payload": {"limit": 10, "batch_size": 5}},
        ),
        (1, RETRY, PROCESS, {"action": "retry_failed", "payload": {}}),
    ],
)
def test_due_items_are_requested_once_at_a_time(
    foreign, endpoint, make_task, attempts, invoke, other, body
):
    make_task(type="SIGNUP_ATOMIC", queue_id="sync", attempts=attempts)
    caller = foreign()
    caller(other)
    for _ in range(2):
        caller(invoke)
        assert "1 items are due" in caller.notices[0]
    [request] = Task.objects.filter(type="http_request")
    assert request.payload == {
        "url": endpoint.url,
        "json": body,
        "secret": "SYNC",
        "timeout": 30,
    }
    assert (request.queue_id, request.status) == ("http", "pending")
    Task.objects.filter(pk=request.pk).update(status="cancelled", completed_at=request.created_at)
    caller(invoke)
    assert Task.objects.filter(type="http_request").count() == 2


@pytest.mark.parametrize(("attempts", "invoke"), [(0, PROCESS), (1, RETRY)])
def test_a_caller_killed_before_its_commit_has_requested_nothing(
    foreign, endpoint, make_task, attempts, invoke
):
    make_task(queue_id="sync", attempts=attempts)
    killed = foreign()
    killed("BEGIN")
    killed(invoke)
    assert killed.value("SELECT count(*) FROM tasks WHERE queue = 'http'") == 1
    killed.kill()
    foreign()(invoke)
    assert Task.objects.filter(type="http_request", status="pending").count() == 1


@pytest.mark.parametrize(("missing", "told"), [("url", "URL"), ("secret", "secret"), ("", "URL")])
def test_a_missing_endpoint_is_a_warning(foreign, make_task, missing, told):
    if missing:
        Endpoint.objects.create(
            **{"name": "bubble_sync", "url": "https://x", "secret": "S"} | {missing: ""}
        )
    make_task(queue_id="sync")
    caller = foreign()
    caller(PROCESS)
    assert caller.notices == [
        "WARNING: [bubble_sync_processor] 1 items are due, "
        f"but the endpoint bubble_sync has no {told}"
    ]
    assert not Task.objects.filter(type="http_request").exists()


def test_the_queues_of_callers_exist(db):
    queues = dict(Queue.objects.values_list("name", "default_timeout"))
    assert {"default", "exports", "jobs", "sync", "gpu", "http"} <= set(queues)
    assert queues["gpu"].total_seconds() == 7200
