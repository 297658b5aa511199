"""Exports: what the ZIP holds, what a bad payload is told, and that memory stays bounded."""

import csv
import hashlib
import io
import json
import os
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test.utils import CaptureQueriesContext

from payments.models import Transaction
from queues import claims, exports, operations
from queues.enqueue import enqueue
from queues.export_task import CHUNK_ROWS, export, read_plan
from queues.models import Queue, Task
from queues.redaction import redact
from queues.retry import Fail, LostLease
from queues.worker import TaskContext
from tests.conftest import eventually
from tests.settings import MEDIA_ROOT

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def storage(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "files"
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()


@pytest.fixture
def claimed():
    """A context for an export that a worker of this test has claimed."""

    def make(**payload):
        made = enqueue("export", payload)
        worker = f"exporter-{made.id}"
        claims.register_worker(
            worker, queues=None, concurrency=1, host="h", pid=1, version="1", metadata={}
        )
        [task] = claims.claim_tasks(worker, ["proof"], 1)
        return TaskContext(task)

    return make


def many_tasks(sql, count):
    sql(
        "INSERT INTO tasks (type, payload, run_at)"
        " SELECT 'many', jsonb_build_object('n', n), now() + '1 h' FROM generate_series(1, %s) n",
        count,
    )


def opened(file):
    """The CSV's rows as dicts and the manifest; the hash and the count are checked."""
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert archive.namelist() == [manifest["file"], "manifest.json"]
        text = archive.read(manifest["file"])
    rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    assert hashlib.sha256(text).hexdigest() == manifest["sha256"]
    assert len(rows) == manifest["row_count"]
    return rows, manifest


def exported(ctx):
    result = export(ctx)
    assert ctx.output_location == result["file"]
    with default_storage.open(result["file"]) as file:
        rows, manifest = opened(file)
    assert (result["rows"], result["sha256"]) == (len(rows), manifest["sha256"])
    assert result["bytes"] == default_storage.size(result["file"])
    return rows, manifest


def test_matching_tasks_in_the_order_of_their_ids(claimed, make_task):
    made = [make_task("failed", type="mail") for _ in range(3)]
    make_task("completed", type="mail")
    ctx = claimed(source="tasks", filter={"status": "failed", "type": ["mail", "sms"]})
    rows, manifest = exported(ctx)
    assert [row["id"] for row in rows] == [str(task.id) for task in made]
    assert rows[0]["error"] == "ValueError: broken"
    assert rows[0]["completed_at"] == made[0].completed_at.astimezone(UTC).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )
    assert (rows[0]["tenant_id"], rows[0]["queue"], rows[0]["attempts"]) == ("", "default", "1")
    assert manifest["filter"] == {"status": "failed", "type": ["mail", "sms"]}
    assert manifest["task_id"] == str(ctx.id)
    assert list(rows[0]) == manifest["columns"]
    assert "payload" not in rows[0]
    assert ctx.output_location == f"exports/{ctx.id}.zip"


def test_transactions_by_status_and_time(claimed):
    def sold(order, **fields):
        return Transaction.objects.create(order_id=order, amount=49900, **fields)

    sold("a", status="paid", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    sold("b", status="paid", created_at=datetime(2026, 1, 31, 23, 59, tzinfo=UTC), email="=cmd@x.y")
    sold("c", status="paid", created_at=datetime(2026, 2, 1, tzinfo=UTC))
    sold("d", status="failed", created_at=datetime(2026, 1, 2, tzinfo=UTC))
    january = {
        "created_after": "2026-01-01",
        "created_before": "2026-02-01T00:00:00Z",
        "status": "paid",
    }
    rows, _ = exported(claimed(source="transactions", filter=january))
    assert [(row["order_id"], row["amount"], row["email"]) for row in rows] == [
        ("a", "49900", ""),
        ("b", "49900", "'=cmd@x.y"),
    ]


def test_nothing_matches(claimed):
    rows, manifest = exported(claimed(source="transactions", filter={"order_id": "none"}))
    assert rows == []
    assert manifest["row_count"] == 0


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_is_a_formula(claimed, make_task, start):
    make_task(type="x", tenant_id=f'{start}1,"ü"')
    rows, _ = exported(
        claimed(source="tasks", filter={"type": "x"}, columns=["tenant_id", "priority"])
    )
    assert rows == [{"tenant_id": f'\'{start}1,"ü"', "priority": "0"}]


def test_a_payload_comes_on_request_without_its_secrets(claimed, make_task):
    make_task(type="x", payload={"a": [{"X-Api-Key": "k1"}], "userToken": {"v": "k2"}, "n": -1})
    rows, _ = exported(claimed(source="tasks", filter={"type": "x"}, columns=["payload"]))
    assert json.loads(rows[0]["payload"]) == {
        "a": [{"X-Api-Key": "[redacted]"}],
        "userToken": "[redacted]",
        "n": -1,
    }


def test_redaction_survives_deep_nesting(settings):
    settings.QUEUE_REDACTED_KEYS = ["", "_", "пароль"]
    value: Any = {"Пароль": 1, "n": 2}
    for _ in range(5000):
        value = [value]
    assert "too deep" in json.dumps(redact(value))
    assert redact({"Мой ПАРОЛЬ": 1, "n": 2}) == {"Мой ПАРОЛЬ": "[redacted]", "n": 2}


def test_chunks_are_short_statements_by_key(claimed, sql):
    many_tasks(sql, CHUNK_ROWS * 2)
    ctx = claimed(source="tasks", filter={"type": "many"})
    notes = []
    ctx.progress = lambda percent, note: notes.append((percent, note))
    with CaptureQueriesContext(connection) as queries:
        rows, _ = exported(ctx)
    assert len({row["id"] for row in rows}) == CHUNK_ROWS * 2
    assert not [q for q in queries if "OFFSET" in q["sql"] or "DECLARE" in q["sql"]]
    assert notes[1:] == [
        (50, "2,000 of about 4,000 rows"),
        (99, "4,000 of about 4,000 rows"),
        (99, "saving the file"),
    ]


def test_a_table_that_grows_does_not_keep_it_running(claimed, sql):
    many_tasks(sql, CHUNK_ROWS)
    ctx = claimed(source="tasks", filter={"type": "many"})
    ctx.progress = lambda percent, note: many_tasks(sql, CHUNK_ROWS) if "rows" in note else None
    assert export(ctx)["rows"] == CHUNK_ROWS


def test_memory_is_bounded(claimed, sql):
    many_tasks(sql, 20_000)
    ctx = claimed(source="tasks", filter={"type": "many"})
    tracemalloc.start()
    try:
        result = export(ctx)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result["rows"] == 20_000
    assert peak < 20_000_000


def test_a_later_attempt_replaces_the_file(claimed):
    ctx = claimed(source="transactions")
    first = export(ctx)
    second = export(ctx)
    assert first["file"] == second["file"]
    assert default_storage.listdir("exports")[1] == [f"{ctx.id}.zip"]


def test_a_cancelled_export_leaves_nothing(claimed, sql, tmp_path):
    many_tasks(sql, 10)
    ctx = claimed(source="tasks")
    keep = ctx.progress

    def lose(percent, note):
        ctx.lost = "rows" in note
        keep(percent, note)

    ctx.progress = lose
    with pytest.raises(LostLease):
        export(ctx)
    assert not default_storage.exists(f"exports/{ctx.id}.zip")
    assert not list((tmp_path / "temporary").iterdir())
    files = Path("/proc/self/fd")
    if files.exists():
        links = [os.readlink(file) for file in files.iterdir() if file.is_symlink()]
        assert not [link for link in links if link.startswith(str(tmp_path))]


def test_a_zombie_leaves_the_file_of_the_other_worker_alone(claimed):
    ctx = claimed(source="transactions")
    export(ctx)
    before = default_storage.get_modified_time(ctx.output_location)
    operations.cancel([ctx.id], actor="a")
    with pytest.raises(LostLease):
        export(ctx)
    assert default_storage.get_modified_time(ctx.output_location) == before


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ([], "The payload must be an object with the keys source, filter, columns."),
        (
            {"source": "tasks", "filters": {}},
            "Unknown key 'filters'; an export has source, filter, columns.",
        ),
        ({}, "There is no source None. Sources: tasks, transactions."),
        ({"source": ["tasks"]}, "There is no source ['tasks']. Sources: tasks, transactions."),
        (
            {"source": "tasks", "filter": [1]},
            "The filter must be an object with keys of status, queue, type, ",
        ),
        (
            {"source": "tasks", "filter": {"state": 1}},
            "tasks cannot be filtered by 'state', only by status, ",
        ),
        (
            {"source": "transactions", "filter": {"status": "done"}},
            "The filter 'status' must be one of created, authorized, paid, failed, "
            "partially_refunded, refunded, or a list of such; it is 'done'.",
        ),
        (
            {"source": "tasks", "filter": {"status": []}},
            "The filter 'status' must be one of blocked, ",
        ),
        (
            {"source": "tasks", "filter": {"type": 3}},
            "The filter 'type' must be a text, or a list of such; it is 3.",
        ),
        ({"source": "tasks", "filter": {"id": "x"}}, "The filter 'id' must be an id (a UUID)"),
        ({"source": "tasks", "filter": {"id": 7}}, "The filter 'id' must be an id (a UUID)"),
        (
            {"source": "tasks", "filter": {"created_after": "soon"}},
            "must be a date or moment such as",
        ),
        (
            {"source": "tasks", "filter": {"created_after": "2026-13-40"}},
            "must be a date or moment such as",
        ),
        ({"source": "tasks", "filter": {"created_after": 5}}, "must be a date or moment such as"),
        (
            {"source": "tasks", "filter": {"created_after": "0001-01-01T00:00:00+10:00"}},
            "must be a date",
        ),
        (
            {"source": "tasks", "columns": ["id", "result"]},
            "There is no column 'result'. Columns of tasks: id, ",
        ),
        (
            {"source": "tasks", "columns": []},
            "The columns must be a list of names. Columns of tasks: ",
        ),
        ({"source": "tasks", "columns": ["id", "id"]}, "A column is named twice."),
    ],
)
def test_a_bad_payload_fails_with_what_is_possible(payload, sentence):
    with pytest.raises(Fail) as failure:
        read_plan(payload)
    assert sentence in str(failure.value)


@pytest.mark.django_db
@pytest.mark.parametrize(("group", "status"), [("viewer", 403), ("payments", 200)])
def test_an_exports_file_is_for_those_who_may_see_its_rows(client_of, make_task, group, status):
    name = default_storage.save("exports/money.zip", ContentFile(b"money"))
    payload = {"source": "transactions"}
    task = make_task("completed", type="export", payload=payload, output_location=name)
    client = client_of(group)
    answer = client.get(f"/tasks/{task.id}/output/")
    assert answer.status_code == status
    assert (b"".join(answer) == b"money") == (status == 200)
    page = client.get(f"/tasks/{task.id}/").content.decode()
    assert ("Download its file" in page) == (status == 200)


def test_two_models_cannot_share_a_name():
    with pytest.raises(ImproperlyConfigured):
        exports.register_source("tasks", Queue, ["name"], {})


@pytest.mark.django_db(transaction=True)
def test_a_worker_exports_thousands_of_rows(run_worker, sql):
    many_tasks(sql, 10_000)
    made = enqueue("export", {"source": "tasks", "filter": {"type": "many"}})
    bad = enqueue("export", {"source": "nothing"})
    worker = run_worker("--queues", "proof")
    settled = Task.objects.filter(queue_id="proof", status__in=Task.FINAL)
    eventually(lambda: settled.count() == 2 or worker.process.poll() is not None)
    task = Task.objects.get(pk=made.id)
    assert task.status == "completed", (task.error, worker.lines)
    file = MEDIA_ROOT / task.output_location
    rows, manifest = opened(file)
    assert task.result == {
        "rows": 10_000,
        "sha256": manifest["sha256"],
        "file": task.output_location,
        "bytes": file.stat().st_size,
    }
    assert (len(rows), task.progress) == (10_000, 100)
    failed = Task.objects.get(pk=bad.id)
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error == "Fail: There is no source 'nothing'. Sources: tasks, transactions."
