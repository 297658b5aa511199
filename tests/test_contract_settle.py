"""Existing callers settle tasks by their bare ids, without a lease."""

from uuid import uuid4

import pytest

from queues import claims
from queues.claims import Success
from queues.enqueue import enqueue
from queues.models import Task
from tests.foreign import COMPLETE, FAIL, UPDATE, Refused

pytestmark = pytest.mark.django_db(transaction=True)


def row(id):
    return Task.objects.get(pk=id)


@pytest.mark.django_db(transaction=False)
@pytest.mark.parametrize("before", Task.Status.values)
@pytest.mark.parametrize(
    ("word", "after"),
    [
        ("Complete", "completed"),
        ("Failed", "failed"),
        ("Cancelled", "cancelled"),
        ("Queued", "pending"),
        ("In Progress", "processing"),
        ("completed", "completed"),
    ],
)
def test_a_bare_id_settles_what_is_open_and_nothing_else(sql, make_task, before, word, after):
    task = make_task(before, attempts=1)
    waiting = enqueue("t", after=[task.id]) if before in Task.LIVE else None
    [(done,)] = sql("SELECT func_update_task_status(%s, %s)", str(task.id), word)
    found = row(task.id)
    if before in (*Task.FINAL, "blocked") or (after == "processing" and before != "processing"):
        assert (done, found.status) == (False, before)
        return
    assert done is True
    queued = {"scheduled": "scheduled", "pending": "pending", "processing": "pending"}
    assert found.status == (queued[before] if after == "pending" else after)
    assert found.attempts == (0 if (before, after) == ("processing", "pending") else 1)
    assert (found.completed_at is not None) == (found.status in Task.FINAL)
    assert row(waiting.id).status == {"completed": "pending", "failed": "cancelled"}.get(
        found.status, "cancelled" if found.status == "cancelled" else "blocked"
    )


def test_what_is_failed_by_its_bare_id_is_never_tried_again(foreign, make_task):
    caller = foreign()
    for status in ("processing", "pending"):
        task = make_task(status, max_attempts=5)
        assert caller.value(FAIL, str(task.id)) is True
        assert caller.value(FAIL, str(task.id)) is False
        found = row(task.id)
        assert (found.status, found.error) == ("failed", "CUDA out of memory")
        assert found.errors[-1]["message"] == "CUDA out of memory"
        assert found.error_fingerprint == "CUDA out of memory"
    task = make_task("processing")
    assert caller.value("SELECT func_mark_task_failed(%s, NULL)", str(task.id)) is True
    assert row(task.id).error == "Failed; no reason was given."


def test_a_holder_is_told_that_its_task_was_settled_by_another(foreign, make_task):
    task = make_task("processing")
    assert foreign().value(COMPLETE, str(task.id)) is True
    assert row(task.id).output_location == "out/a.mp4"
    task = make_task("processing")
    assert foreign().value(UPDATE, str(task.id), "Cancelled") is True
    assert claims.complete_tasks([Success(task.id, task.lease)]) == {task.id: "stale"}


BAD = {
    "no uuid": ("SELECT func_update_task_status('7', 'Complete')", "p_task_id is no uuid"),
    "word": (f"SELECT func_update_task_status('{uuid4()}', 'Done')", 'unknown status "Done"'),
    "no word": (f"SELECT func_update_task_status('{uuid4()}', NULL)", 'unknown status "null"'),
    "table": (
        f"SELECT func_update_task_status('{uuid4()}', 'Failed', 'auth_user')",
        'no table of tasks named "auth_user"',
    ),
    "no table": ("SELECT func_initialize_tasks_table(NULL)", 'no table of tasks named "null"'),
    "injection": (
        "SELECT func_migrate_tasks_for_task_type('tasks; DROP TABLE tasks')",
        "no table of tasks named",
    ),
    "worker": ("SELECT * FROM claim_job(repeat('w', 201))", "200_characters"),
    "type": ("SELECT * FROM create_task('')", "type"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_clearly(foreign, name):
    enqueue("t", queue="jobs")
    statement, told = BAD[name]
    with pytest.raises(Refused, match=told) as refused:
        foreign()(statement)
    assert refused.value.sqlstate in ("22P02", "22023", "23514")
    assert Task.objects.filter(status="pending").count() == 1


@pytest.mark.parametrize("id", [str(uuid4()), None], ids=["unknown", "none"])
def test_an_unknown_task_is_answered_with_false(foreign, id):
    caller = foreign()
    assert caller.value(UPDATE, id, "Complete") is False
    assert caller.value(COMPLETE, id) is False
    assert caller.value(FAIL, id) is False
