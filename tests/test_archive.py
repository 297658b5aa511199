"""Finished tasks move to the archive exactly once, are found there, and come back for a retry."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from queues import claims, maintenance, operations
from queues.claims import Success
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.export_task import read_plan
from queues.lookup import find_task, find_tasks
from queues.models import AnyTask, ArchivedTask, Queue, Task, TaskDependency
from tests.conftest import eventually
from tests.console import fill, link, task_ids, words

pytestmark = pytest.mark.django_db
racing = pytest.mark.django_db(transaction=True)

AGO = timedelta(days=40)
DAYS = "SELECT day, partition FROM archive_days()"
COLUMNS = """
SELECT column_name, data_type, udt_name, is_nullable FROM information_schema.columns
 WHERE table_schema = 'public' AND table_name = %s AND column_name <> 'archived'
"""


@pytest.fixture
def archive_finished(sql):
    return lambda limit=5000: sql("SELECT archive_finished(%s)", limit)[0][0]


@pytest.fixture
def make_old(make_task):
    """A finished task that is due for the archive."""
    return lambda status="completed", **fields: make_task(
        status, **{"completed_at": timezone.now() - AGO, **fields}
    )


@pytest.fixture
def make_archived(make_old, archive_finished):
    def make(status="completed", **fields):
        task = make_old(status, **fields)
        assert archive_finished() == 1
        return task

    return make


def whole_rows(sql, table):
    return sql(f"SELECT to_jsonb(t) - 'archived' FROM {table} t ORDER BY id")


def test_a_task_moves_and_comes_back_whole(make_old, sql, archive_finished):
    for status in Task.FINAL:
        make_old(status, payload={"n": 1}, result=[1], correlation_id="c", lease=7, tenant_id="t")
    before = whole_rows(sql, "tasks")
    assert archive_finished() == 3
    assert not Task.objects.exists()
    assert whole_rows(sql, "tasks_archive") == before
    ids = list(ArchivedTask.objects.values_list("id", flat=True))
    assert sql("SELECT unarchive_tasks(%s)", ids) == [(3,)]
    assert whole_rows(sql, "tasks") == before
    assert not ArchivedTask.objects.exists()
    assert sql("SELECT unarchive_tasks(%s)", ids) == [(0,)]


def test_each_queue_keeps_its_tasks_for_its_time(make_task, archive_finished):
    Queue.objects.create(
        name="quick", archive_after=timedelta(hours=1), keep_failed=timedelta(days=2)
    )
    old = timezone.now() - timedelta(days=1, hours=1)
    kept = [
        make_task("completed", queue_id="default", completed_at=old),
        make_task("failed", queue_id="quick", completed_at=old),
        make_task("completed", queue_id="quick"),
        make_task("pending", queue_id="quick"),
    ]
    gone = [
        make_task("completed", queue_id="quick", completed_at=old),
        make_task("cancelled", queue_id="quick", completed_at=old),
        make_task("failed", queue_id="quick", completed_at=old - timedelta(days=1)),
    ]
    assert archive_finished() == 3
    assert set(ArchivedTask.objects.values_list("id", flat=True)) == {task.id for task in gone}
    assert set(Task.objects.values_list("id", flat=True)) == {task.id for task in kept}


def test_the_oldest_go_first_past_those_that_stay(sql, archive_finished):
    Queue.objects.create(name="quick")
    fill(sql, "completed", 300, completed_at="now() - n * interval '1 minute' - interval '2 days'")
    sql("UPDATE tasks SET queue = 'quick' WHERE extract(minute FROM completed_at)::integer % 3 = 0")
    quick = Task.objects.filter(queue_id="quick").order_by("completed_at")
    ids = list(quick.values_list("id", flat=True))
    moved = 0
    while count := archive_finished(7):
        moved += count
        assert set(ArchivedTask.objects.values_list("id", flat=True)) == set(ids[:moved])
    assert moved == len(ids) == 100
    assert Task.objects.count() == 200


def test_what_others_wait_on_stays_until_they_are_settled(make_old, make_task, archive_finished):
    first = make_old()
    second = make_task("blocked")
    edge = TaskDependency.objects.create(task=second, predecessor_id=first.id)
    assert archive_finished() == 0
    TaskDependency.objects.filter(pk=edge.pk).update(outcome="released")
    assert archive_finished() == 1


@racing
def test_a_task_that_somebody_holds_stays(make_old, archive_finished, at_once):
    held, free = make_old(), make_old()
    with transaction.atomic():
        Task.objects.select_for_update().get(pk=held.pk)
        assert at_once(lambda: claims.query("SELECT archive_finished()", [])) == [[(1,)]]
    assert [task.pk for task in Task.objects.all()] == [held.pk]
    assert ArchivedTask.objects.get().pk == free.pk


@racing
def test_eight_archivers_beside_workers_lose_and_double_nothing(at_once, sql):
    Queue.objects.filter(name="default").update(archive_after=timedelta(minutes=1))
    fill(sql, "completed", 2000, completed_at="now() - interval '1 hour'")
    made = {e.id for e in enqueue_many(NewTask(type="t") for _ in range(1000))}

    def work(worker):
        while tasks := claims.claim_tasks(worker, None, 20):
            claims.complete_tasks([Success(task.id, task.lease) for task in tasks])

    def archive(_):
        seen = set()
        while Task.objects.filter(type="test").exists():
            claims.query("SELECT archive_finished(50)", [])
            seen.add(AnyTask.objects.count())
        return seen

    calls = [*(partial(archive, n) for n in range(8)), *(partial(work, f"w{n}") for n in range(4))]
    counts = set().union(*at_once(*calls)[:8])
    assert counts == {3000}
    assert (Task.objects.count(), ArchivedTask.objects.count()) == (1000, 2000)
    assert set(Task.objects.values_list("id", "status")) == {(id, "completed") for id in made}
    assert len(set(AnyTask.objects.values_list("id", flat=True))) == 3000


def test_the_three_tables_have_the_same_columns(sql):
    columns = [sorted(sql(COLUMNS, name)) for name in ("tasks", "tasks_archive", "all_tasks")]
    assert columns[0]
    assert [row[:3] for row in columns[0]] == [row[:3] for row in columns[2]]
    # The key of the archive needs a moment of completion; else they agree.
    assert {row[0] for row in set(columns[0]) ^ set(columns[1])} == {"completed_at"}


def test_partitions_are_made_ahead_and_old_ones_dropped_with_their_edges(sql, make_old):
    today = datetime.now(UTC).date()
    sql("SELECT make_archive_partitions(%s, 9)", today - timedelta(days=80))
    expected = [today + timedelta(days=n) for n in range(-80, 10)]
    assert [day for day, _ in sql(DAYS)] == expected
    assert sql("SELECT make_archive_partitions()") == [(0,)]
    old = make_old(completed_at=timezone.now() - timedelta(days=70))
    edge = TaskDependency.objects.create(task=old, predecessor_id=uuid4(), outcome="released")
    sql("SELECT archive_finished()")
    sql("UPDATE queues SET keep_for = '60 days'")
    dropped = 0
    while sql("SELECT drop_old_archives()") == [(1,)]:
        dropped += 1
    assert dropped == 20
    assert [day for day, _ in sql(DAYS)] == expected[20:]
    assert not AnyTask.objects.exists()
    assert not TaskDependency.objects.filter(pk=edge.pk).exists()


def test_a_day_without_its_partition_goes_by_the_default_one(make_archived, sql):
    task = make_archived()
    placed = "SELECT tableoid::regclass::text FROM tasks_archive WHERE id = %s"
    assert sql(placed, task.id) == [("tasks_archive_default",)]
    day = task.completed_at.astimezone(UTC).date()
    assert sql("SELECT make_archive_partitions(%s) > 0", day) == [(True,)]
    assert sql(placed, task.id) == [(f"tasks_archive_{day:%Y%m%d}",)]
    sql("UPDATE queues SET keep_for = '30 days'")
    stray = ArchivedTask.objects.create(
        type="stray", status="completed", completed_at=timezone.now() - timedelta(days=50)
    )
    assert sql(placed, stray.id) == [("tasks_archive_default",)]
    sql("SELECT drop_old_archives(100)")
    assert not ArchivedTask.objects.exists()


@racing
def test_partitions_are_made_and_dropped_by_many_at_once(at_once, sql):
    today = datetime.now(UTC).date()
    [(until,)] = sql("SELECT max(day) FROM archive_days()")
    further = (until - today).days + 5
    made = at_once(
        *[lambda: claims.query("SELECT make_archive_partitions(NULL, %s)", [further])] * 8
    )
    assert sum(count for [(count,)] in made) == 5
    sql("SELECT make_archive_partitions(%s)", today - timedelta(days=20))
    sql("UPDATE queues SET keep_for = '10 days'")
    eventually(
        lambda: (
            at_once(*[lambda: claims.query("SELECT drop_old_archives(3)", [])] * 8)
            and sql("SELECT min(day) FROM archive_days()")[0][0] >= today - timedelta(days=10)
        )
    )


@racing
def test_a_reader_holds_up_partitions_only_and_they_come_later(at_once, sql, make_old):
    make_old()
    [(until,)] = sql("SELECT max(day) FROM archive_days()")
    ahead = (until - datetime.now(UTC).date()).days + 1
    make = partial(claims.query, "SELECT make_archive_partitions(NULL, %s)", [ahead])
    with transaction.atomic():
        assert AnyTask.objects.count() == 1
        assert at_once(make) == [[(0,)]]
        assert at_once(lambda: claims.query("SELECT archive_finished()", [])) == [[(1,)]]
    assert make() == [(1,)]


def test_an_id_is_looked_up_by_index_in_every_partition(sql, make_old):
    sql("SELECT make_archive_partitions(%s)", datetime.now(UTC).date() - timedelta(days=60))
    fill(sql, "completed", 5000, completed_at="now() - n * interval '10 minutes' - interval '31 d'")
    sql("SELECT archive_finished(10000)")
    sql("SET LOCAL enable_seqscan = off")
    plan = [line for (line,) in sql("EXPLAIN SELECT * FROM all_tasks WHERE id = %s", uuid4())]
    assert sum("_pkey on tasks_archive_" in line for line in plan) >= 67
    assert not [line for line in plan if "Seq Scan" in line]


def test_a_list_reads_only_the_ends_of_its_indexes(sql):
    fill(sql, "failed", 3000, completed_at="now() - n * interval '1 minute' - interval '31 days'")
    sql("SELECT make_archive_partitions(%s)", datetime.now(UTC).date() - timedelta(days=40))
    sql("SELECT archive_finished(10000)")
    sql("ANALYZE tasks_archive")
    for status, index in (("failed", "status_completed_at_id"), (None, "completed_at_id")):
        rows = ArchivedTask.objects.filter(status=status) if status else ArchivedTask.objects.all()
        plan = rows.order_by("-completed_at", "-id")[:51].explain()
        assert f"{index}_idx" in plan, plan
        assert "Merge Append" in plan, plan


def test_sweeping_makes_partitions_and_moves_what_is_due(sql, make_old, monkeypatch):
    monkeypatch.setattr(maintenance, "CHUNK", 2)
    for _ in range(5):
        make_old()
    newest = sql("SELECT max(partition) FROM archive_days()")[0][0]
    sql(f"DROP TABLE {newest}")
    maintenance.archive()
    assert newest in [name for _, name in sql(DAYS)]
    assert (Task.objects.count(), ArchivedTask.objects.count()) == (0, 5)


def test_a_sweep_ends_after_its_time(make_old, monkeypatch):
    monkeypatch.setattr(maintenance, "CHUNK", 1)
    monkeypatch.setattr(maintenance, "LONGEST_SECONDS", 0)
    make_old()
    maintenance.archive()
    assert Task.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("archive_after", timedelta(0)),
        ("keep_failed", timedelta(days=4000)),
        ("keep_for", AGO / 99),
    ],
)
def test_impossible_times_are_refused_with_a_sentence(field, value):
    queue = Queue.objects.get(name="default")
    setattr(queue, field, value)
    words = field.replace("_", " ").capitalize()
    with pytest.raises(ValidationError, match=f"{words} is at least a .* at most ten years"):
        queue.full_clean()


def test_queues_that_callers_read_keep_finished_tasks_for_a_month():
    times = dict(Queue.objects.values_list("name", "archive_after"))
    assert (times["default"], times["gpu"]) == (timedelta(days=30), timedelta(days=30))
    assert times["http"] == timedelta(days=1)


def test_predecessors_are_known_live_or_archived(make_archived, make_task, sql):
    archived, live = make_archived(), make_task("pending")
    states = sql("SELECT * FROM predecessor_states(%s)", [archived.id, live.id, uuid4(), None])
    assert set(states) == {(archived.id, "completed"), (live.id, "pending")}
    assert sql("SELECT * FROM predecessor_states('{}')") == []


def test_an_id_that_a_caller_brought_again_means_the_later_task(make_archived, make_old, sql):
    first = make_archived(type="first")
    later = make_archived(id=first.id, type="later", completed_at=first.completed_at + AGO / 80)
    assert find_task(first.id).type == "later"
    assert find_tasks([first.id, uuid4()]).keys() == {first.id}
    assert sql("SELECT unarchive_tasks(%s)", [later.id]) == [(1,)]
    assert find_task(first.id).completed_at == later.completed_at
    assert ArchivedTask.objects.get().type == "first"


def test_a_retry_brings_an_archived_task_back(make_archived):
    task = make_archived("failed", lease=3)
    made = operations.retry([task.id], actor="a")
    assert (made.done, made.skipped) == (1, 0)
    back = Task.objects.get(pk=task.pk)
    assert (back.status, back.lease, back.attempts) == ("pending", 3, 0)
    assert not ArchivedTask.objects.exists()


def test_a_retry_brings_back_what_was_cancelled_with_it(make_old, archive_finished):
    first, second = make_old("failed"), make_old("cancelled")
    TaskDependency.objects.create(task=second, predecessor_id=first.id, outcome="cancelled")
    assert archive_finished() == 2
    operations.retry([first.id], actor="a", dependants=True)
    states = dict(Task.objects.values_list("id", "status"))
    assert states == {first.id: "pending", second.id: "blocked"}


@racing
def test_a_retry_finds_a_task_that_moves_at_this_moment(at_once, make_old, sql):
    for _ in range(30):
        task = make_old("failed")
        at_once(
            lambda: claims.query("SELECT archive_finished()", []),
            lambda task=task: operations.retry([task.id], actor="a"),
        )
        assert Task.objects.get(pk=task.pk).status == "pending"
        assert not ArchivedTask.objects.exists()


def test_exports_read_both_tables(make_archived, make_task):
    both = {make_archived(type="x").id, make_task(type="x").id}
    plan = read_plan({"source": "tasks", "filter": {"type": "x"}})
    assert set(plan.rows.values_list("id", flat=True)) == both


class TestConsole:
    def test_an_archived_task_has_its_page_and_its_retry(self, client_of, make_archived):
        task = make_archived("failed", payload={"n": 5}, correlation_id="k")
        follower = enqueue("follower", correlation_id="k")
        client = client_of("operator")
        page = client.get(reverse("queue:task", args=[task.pk]))
        assert "Archived:" in words(page)
        assert '"n": 5' in words(page)
        assert str(follower.id) in task_ids(page)
        data = {"verb": "retry", "task": f"{task.pk}:{task.lease}", "back": "/"}
        client.post(reverse("queue:act"), data)
        assert Task.objects.get(pk=task.pk).status == "pending"
        assert "Archived:" not in words(client.get(reverse("queue:task", args=[task.pk])))

    def test_a_trail_and_a_chain_reach_into_the_archive(self, client_of, make_archived, make_task):
        old = make_archived(correlation_id="k")
        task = make_task("completed", correlation_id="k")
        TaskDependency.objects.create(task=task, predecessor_id=old.id, outcome="released")
        page = client_of("viewer").get(reverse("queue:task", args=[task.pk]))
        assert task_ids(page).count(str(old.pk)) == 2
        assert "runs after completed test" in words(page)

    def test_lists_show_one_table_and_an_id_is_found_in_both(
        self, client_of, make_archived, make_task
    ):
        old, new = make_archived("failed"), make_task("failed")
        client = client_of("operator")
        url = reverse("queue:tasks")
        assert task_ids(client.get(url)) == [str(new.pk)]
        page = client.get(url, {"archive": 1})
        assert task_ids(page) == [str(old.pk)]
        assert "Retry selected" in words(page)
        assert "Cancel selected" not in words(page)
        assert task_ids(client.get(url, {"id": old.pk})) == [str(old.pk)]
        page = client.get(url, {"archive": 1, "status": "pending"})
        assert "No archived task is pending" in words(page)

    def test_pages_of_the_archive_reach_every_task_once(self, client_of, sql):
        moment = "now() - (n / 3) * interval '1 minute' - interval '31 days'"
        fill(sql, "cancelled", 120, completed_at=moment)
        sql("SELECT archive_finished()")
        client, url = client_of("viewer"), reverse("queue:tasks") + "?archive=1"
        seen = []
        while url:
            page = client.get(url)
            seen += task_ids(page)
            url = (rest := link(page, "next")) and reverse("queue:tasks") + rest
        assert len(seen) == len(set(seen)) == 120

    def test_who_may_not_retry_is_not_offered_it(self, client_of, make_archived):
        task = make_archived("failed")
        page = client_of("viewer").get(reverse("queue:task", args=[task.pk]))
        assert "Retry" not in words(page)

    def test_an_unknown_id_is_not_found(self, client_of, db):
        assert client_of("viewer").get(reverse("queue:task", args=[uuid4()])).status_code == 404
