"""Many tasks at once: the rows that are streamed are those that one by one would have been."""

import threading
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, connection, connections, transaction

from queues.bulk import enqueue_batch
from queues.enqueue import EnqueueError, NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker
from tests.conftest import database_url, eventually

pytestmark = pytest.mark.django_db

AWKWARD: list[object] = [
    "tab\there",
    "line\nbreak\r\n",
    "back\\slash \\N \\. \\t",
    "\"quotes\" 'and' $$dollars$$",
    "ü 你好 🎉 \u2028 \x7f \x01",
    {"key\twith\\all": ["\n", None, True, 1.5, -0.0, 10**30]},
    None,
    "\\.",
    [],
]
STORED_LARGER = [1] * 500_000


def many(type, payloads, **fields):
    """enqueue_many() as enqueue_batch() is called."""
    tasks = [NewTask(type=type, payload=payload, **fields) for payload in payloads]
    return [made.id for made in enqueue_many(tasks)]


ways = pytest.mark.parametrize("way", [enqueue_batch, many], ids=["enqueue_batch", "enqueue_many"])


@ways
def test_ids_come_in_the_order_of_the_payloads_and_grow(way):
    earlier = enqueue("t").id
    ids = way("t", range(12_345))
    later = enqueue("t").id
    assert [earlier, *ids, later] == sorted([earlier, *ids, later])
    found = dict(Task.objects.values_list("id", "payload"))
    assert [found[id] for id in ids] == list(range(12_345))
    assert {(id.version, id.variant) for id in ids} == {(7, "specified in RFC 4122")}
    assert len({id.int & 0xFFFF_FFFF for id in ids}) > 12_000, "their ends are not random"
    claimed = Task.objects.filter(pk__in=ids).order_by("-priority", "round", "run_at", "id")
    assert list(claimed.values_list("id", flat=True)) == ids


@ways
def test_payloads_arrive_as_they_were_sent(way):
    ids = way("awk\\ward\ttype", AWKWARD * 10)
    found = Task.objects.in_bulk(ids)
    expected = [{} if value is None else value for value in AWKWARD * 10]
    assert [found[id].payload for id in ids] == expected
    assert {task.type for task in found.values()} == {"awk\\ward\ttype"}


@ways
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"priority": -7, "max_attempts": 9, "timeout": 90.5},
        {"tenant_id": "a\\c\tme", "correlation_id": "\\N", "queue": "jobs"},
        {"run_at": timedelta(minutes=5)},
        {"run_at": timedelta(minutes=-5), "timeout": timedelta(days=200)},
        {"run_at": "2099-12-24T18:00:00.123456+05:30"},
        {"run_at": "2001-01-01T00:00:00"},
    ],
    ids=str,
)
def test_every_option_gives_the_row_that_one_by_one_gives(way, fields):
    alone = Task.objects.get(pk=enqueue("t", {"a": 1}, **fields).id)
    for task in Task.objects.filter(pk__in=way("t", [{"a": 1}] * 50, **fields)):
        same = [
            field.attname
            for field in Task._meta.concrete_fields
            if field.name not in ("id", "run_at", "created_at", "updated_at")
        ]
        assert {name: getattr(task, name) for name in same} == {
            name: getattr(alone, name) for name in same
        }
        assert abs(task.run_at - alone.run_at) < timedelta(seconds=20)
        assert abs(task.created_at - alone.created_at) < timedelta(seconds=20)


@ways
def test_a_fair_queue_gives_each_tenant_its_rounds(way):
    Queue.objects.create(name="fair", fair=True)
    for tenant, count in (("a", 40), ("b", 30), ("a", 35), (None, 30)):
        way("t", range(count), queue="fair", tenant_id=tenant)
    rounds = {}
    for tenant, number in Task.objects.order_by("id").values_list("tenant_id", "round"):
        rounds.setdefault(tenant, []).append(number)
    assert rounds == {
        "a": list(range(1, 76)),
        "b": list(range(1, 31)),
        None: list(range(1, 31)),
    }


BAD = [
    ({}, "x\x00y", "task 1234: the payload holds a NUL character"),
    ({}, "\ud800", "task 1234: the payload holds a NUL character or half a surrogate"),
    ({}, object(), "task 1234: the payload cannot be written as JSON"),
    ({}, "x" * 1_048_600, "task 1234: the payload is 1,048,602 bytes"),
    ({}, STORED_LARGER, "the payload is larger than 1,048,576 bytes as PostgreSQL stores it"),
    ({"queue": "nowhere"}, 1, 'queue "nowhere" does not exist.*Existing queues: .*default'),
    ({"run_at": timedelta(days=3_000_000)}, 1, "out of range|tasks_moments_in_calendar"),
    ({"run_at": timedelta(days=-30_000)}, 1, "out of range|tasks_moments_in_calendar"),
    ({"priority": 101}, 1, "from -100 to 100"),
    ({"tenant_id": "a\x00"}, 1, "NUL"),
    ({"timeout": 1e-7}, 1, "above 0"),
]


@ways
@pytest.mark.parametrize(("fields", "payload", "message"), BAD, ids=[bad[2][:40] for bad in BAD])
def test_what_is_refused_is_refused_whole_and_the_transaction_goes_on(
    way, fields, payload, message
):
    payloads = [*range(1233), payload, *range(800)]
    with transaction.atomic():
        with pytest.raises(EnqueueError, match=message):
            way("t", payloads, **fields)
        assert not Task.objects.exists()
        enqueue("good")
    assert Task.objects.get().type == "good"


def test_a_large_payload_that_fits_is_taken(sql):
    ids = enqueue_batch("t", ["x" * 1_040_000, [1] * 50_000])
    assert Task.objects.filter(pk__in=ids).count() == 2


@ways
def test_they_belong_to_the_callers_transaction(way):
    with pytest.raises(RuntimeError), transaction.atomic():
        way("t", range(100))
        raise RuntimeError
    assert not Task.objects.exists()


def test_what_yields_the_payloads_may_use_the_database():
    enqueue_many(NewTask(type="one") for _ in range(30))
    names = Queue.objects.values_list("name", flat=True).iterator(chunk_size=1)
    made = enqueue_batch("t", (Queue.objects.get(name=name).name for name in names))
    assert len(made) == Queue.objects.count()
    many = enqueue_many(
        NewTask(type="u", payload=task.type) for task in Task.objects.filter(type="one").iterator()
    )
    assert len(many) == 30


def test_nothing_to_enqueue_is_nothing():
    assert enqueue_batch("t", []) == []
    assert enqueue_many([]) == []


def bad_insert(sql):
    with pytest.raises(DatabaseError, match="tasks_type_1_to_200"), transaction.atomic():
        sql("INSERT INTO tasks (type, queue) VALUES (' ', 'default')")


@ways
def test_afterwards_the_same_transaction_checks_other_inserts_as_before(sql, way):
    with transaction.atomic():
        way("t", range(100))
        bad_insert(sql)
        with transaction.atomic():
            way("t", range(100))
        bad_insert(sql)
        for bad in ("\x00", STORED_LARGER):
            with pytest.raises(EnqueueError):
                way("t", [*range(100), bad])
            bad_insert(sql)
        assert sql("SELECT current_setting('opsconsole.checked_queue', true)") == [("",)]
    assert Task.objects.count() == 200


def test_enqueue_many_keeps_the_order_of_all_kinds_of_tasks(make_task):
    done, waiting = make_task("completed"), make_task()
    key = enqueue("keyed", dedupe_key="taken").id
    kinds = [
        {"queue": "default"},
        {"queue": "jobs", "priority": 3},
        {"type": "keyed", "dedupe_key": "taken"},
        {"dedupe_key": "new-{}"},
        {"after": [done.id, waiting.id]},
        {"run_at": timedelta(hours=1)},
        {"queue": "sync", "tenant_id": "t-{}"},
    ]
    tasks = []
    for n in range(70):
        fields = {k: v.format(n) if isinstance(v, str) else v for k, v in kinds[n % 7].items()}
        tasks.append(NewTask(**{"type": "t", "payload": n} | fields))
    made = enqueue_many(tasks)
    found = Task.objects.in_bulk([enqueued.id for enqueued in made])
    for n, (id, created) in enumerate(made):
        if n % 7 == 2:
            assert (id, created) == (key, False)
            continue
        task = found[id]
        assert (created, task.payload) == (True, n)
        assert (
            task.queue_id == ["default", "jobs", "", "default", "default", "default", "sync"][n % 7]
        )
        assert task.status == {4: "blocked", 5: "scheduled"}.get(n % 7, "pending")


def test_the_bad_one_among_many_is_named_whatever_its_kind():
    tasks = [NewTask(type="t", queue=("jobs", "sync")[n % 2]) for n in range(100)]
    for number, bad, sentence in (
        (61, NewTask(type="t", queue="nowhere"), 'task 61: queue "nowhere"'),
        (40, NewTask(type="t", payload=STORED_LARGER), "task 40: the payload is larger"),
        (7, NewTask(type="t", after=[UUID(int=7)]), "task 7: .*predecessor"),
        (1, NewTask(type="t", run_at=timedelta(days=3_000_000)), "task 1: "),
    ):
        with pytest.raises(EnqueueError, match=sentence) as caught:
            enqueue_many([*tasks[: number - 1], bad, *tasks[number:]])
        assert caught.value.number == number
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
@ways
def test_an_idle_worker_is_woken(run_worker, way):
    run_worker(QUEUE_POLL_SECONDS="3600").started()
    eventually(lambda: Worker.objects.filter(idle_since__isnull=False).exists())
    way("echo", range(100))
    eventually(lambda: Task.objects.filter(status="completed").count() == 100)


def raw_insert(type, payloads, queue):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO tasks (type, queue) VALUES (%s, %s)", [type, queue])


def one(type, payloads, queue):
    enqueue(type, queue=queue)


every_way = pytest.mark.parametrize(
    "way", [enqueue_batch, many, one, raw_insert], ids=["batch", "many", "one", "raw"]
)


def waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone() != (0,)


@pytest.mark.django_db(transaction=True)
@every_way
def test_a_queue_cannot_go_while_tasks_are_on_their_way_into_it(way):
    Queue.objects.create(name="q")
    refused = []

    def delete():
        with psycopg.connect(database_url()) as other:
            try:
                other.execute("DELETE FROM queues WHERE name = 'q'")
            except psycopg.errors.ForeignKeyViolation as error:
                refused.append(str(error))

    with transaction.atomic():
        way("t", range(50), queue="q")
        thread = threading.Thread(target=delete)
        thread.start()
        eventually(waits_for_a_lock)
    thread.join()
    assert 'queue "q" still has tasks' in refused[0]
    assert Task.objects.filter(queue_id="q").exists()


@pytest.mark.django_db(transaction=True)
@every_way
def test_no_task_gets_into_a_queue_that_is_being_deleted(way):
    Queue.objects.create(name="q")
    refused = []

    def put():
        try:
            way("t", range(50), queue="q")
        except (EnqueueError, DatabaseError) as error:
            refused.append(str(error))
        finally:
            connections.close_all()

    with psycopg.connect(database_url()) as other:
        other.execute("DELETE FROM queues WHERE name = 'q'")
        thread = threading.Thread(target=put)
        thread.start()
        eventually(waits_for_a_lock)
    thread.join()
    assert 'queue "q" does not exist' in refused[0]
    assert not Task.objects.exclude(queue__in=Queue.objects.values("name")).exists()


@pytest.mark.django_db(transaction=True)
def test_the_callers_own_setting_passes_nobody_by_the_rules(sql):
    sql("SELECT set_config('opsconsole.checked_queue', 'default', false)")
    try:
        with pytest.raises(IntegrityError, match="tasks_type_1_to_200"):
            sql("SELECT * FROM enqueue_task(repeat('x', 500))")
        with pytest.raises(IntegrityError, match="tasks_priority_range"):
            sql('SELECT * FROM enqueue_tasks(\'[{"type": "t", "priority": 300}]\')')
    finally:
        sql("SELECT set_config('opsconsole.checked_queue', '', false)")
