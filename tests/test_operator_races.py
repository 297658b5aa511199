"""Operators against workers, enqueuers and each other, on real connections."""

import random

import psycopg
import pytest
from django.db import connection

from queues import claims, operations
from queues.claims import Failure, Success
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker
from tests.conftest import database_url, eventually

pytestmark = pytest.mark.django_db(transaction=True)


def waiting_for_locks():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return cursor.fetchone()[0]


@pytest.fixture
def deadlocks(sql):
    """How many deadlocks this database has seen, those of the sessions that ended included."""

    def count():
        # A backend adds what it saw to the statistics when it ends.
        eventually(
            lambda: (
                not sql(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            )
        )
        sql("SELECT pg_stat_clear_snapshot()")
        [(seen,)] = sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return seen

    return count


@pytest.fixture
def session():
    """Another session's transaction, open until the test commits it."""
    with psycopg.connect(database_url()) as other:
        yield other


def test_a_key_that_is_taken_while_a_retry_waits_skips_that_task_alone(at_once, make_task, session):
    taken, free = make_task("failed", dedupe_key="k"), make_task("failed", dedupe_key="l")
    session.execute("SELECT * FROM enqueue_task('test', p_dedupe_key => 'k')")

    def commit():
        eventually(waiting_for_locks)
        session.commit()

    operation, _ = at_once(
        lambda: operations.retry([taken.id, free.id], actor="a"),
        commit,
    )
    assert (operation.done, operation.skipped) == (1, 1)
    assert operation.items.get(task_id=taken.id).note == "another live task holds its dedupe key k"
    assert operation.items.get(task_id=free.id).after == "pending"


def test_retries_of_the_same_keys_in_any_order_bring_each_key_back_once(
    at_once, make_task, deadlocks
):
    before = deadlocks()
    keys = [f"k{n}" for n in range(40)]
    sets = []
    for seed in range(6):
        shuffled = random.Random(seed).sample(keys, 40)
        sets.append([make_task("failed", dedupe_key=key).id for key in shuffled])
    ended = [make_task("completed", dedupe_key=key).id for key in keys]
    made = at_once(
        *(lambda ids=ids: operations.retry(ids, actor="a") for ids in sets),
        lambda: operations.run_again(ended, actor="a"),
        lambda: operations.run_again(ended[::-1], actor="a"),
    )
    assert sum(operation.done for operation in made) == 40
    live = Task.objects.filter(status="pending").values_list("dedupe_key", flat=True)
    assert sorted(live) == sorted(keys)
    assert deadlocks() == before


@pytest.mark.parametrize("verb", ["release", "cancel", "requeue"])
def test_one_of_an_operator_and_a_finishing_worker_wins(at_once, verb):
    act = {
        "release": lambda id: operations.release([id], actor="a", reason="r"),
        "cancel": lambda id: operations.cancel([id], actor="a"),
        "requeue": lambda id: operations.requeue([id], actor="a", reason="r", force=True),
    }[verb]
    for _ in range(15):
        enqueue("t")
        [held] = claims.claim_tasks("w", None, 1)
        outcome, operation = at_once(
            lambda held=held: claims.complete_tasks([Success(held.id, held.lease)])[held.id],
            lambda held=held: act(held.id),
        )
        task = Task.objects.get()
        assert (outcome == "recorded") == (task.status == "completed") == (operation.done == 0)
        Task.objects.all().delete()


def test_a_moved_task_is_claimed_once_from_one_of_its_queues(at_once):
    Queue.objects.get_or_create(name="other")
    ids = [made.id for made in enqueue_many(NewTask(type="t") for _ in range(200))]
    here, there, operation = at_once(
        lambda: claims.claim_tasks("w1", ["default"], 100),
        lambda: [t for _ in range(20) for t in claims.claim_tasks("w2", ["other"], 50)],
        lambda: operations.move(ids, "other", actor="a"),
    )
    claimed = [task.id for task in (*here, *there)]
    assert len(claimed) == len(set(claimed))
    assert operation.done == 200 - len(here)
    assert Task.objects.filter(queue_id="other").count() == operation.done


def test_overlapping_acts_of_every_verb_never_deadlock(at_once, deadlocks, make_worker):
    before = deadlocks()
    make_worker("w")
    for name in ("a", "b"):
        Queue.objects.create(name=name)
    parents = [made.id for made in enqueue_many(NewTask(type="p") for _ in range(60))]
    children = [
        made.id
        for made in enqueue_many(
            NewTask(type="c", after=[parents[n], parents[-1 - n]]) for n in range(60)
        )
    ]
    held = claims.claim_tasks("w", None, 30)
    ids = parents + children

    def mixed(seed):
        return random.Random(seed).sample(ids, 90)

    at_once(
        lambda: operations.set_priority(mixed(1), 5, actor="a"),
        lambda: operations.set_priority(mixed(2), -5, actor="a"),
        lambda: operations.move(mixed(3), "a", actor="a"),
        lambda: operations.move(mixed(4), "b", actor="a"),
        lambda: operations.release(mixed(5), actor="a", reason="r"),
        lambda: operations.requeue(mixed(6), actor="a", reason="r", force=True),
        lambda: operations.rescue(mixed(7), actor="a"),
        lambda: operations.cancel(mixed(8), actor="a"),
        lambda: operations.retry(mixed(9), actor="a", dependants=True),
        lambda: operations.run_again(mixed(10), actor="a"),
        lambda: claims.complete_tasks([Success(t.id, t.lease) for t in held[::2]]),
        lambda: claims.fail_tasks(
            [Failure(t.id, t.lease, "E", "m", final=True) for t in held[1::2]]
        ),
        lambda: [operations.pause(name, actor="a") for name in ("b", "a", "default")],
        lambda: [enqueue("late", after=parents[n : n + 5]) for n in range(20)],
    )
    blocked = Task.objects.filter(status="blocked").prefetch_related("waits_for")
    live = set(Task.objects.filter(status__in=Task.LIVE).values_list("id", flat=True))
    for task in blocked:
        waits = [e.predecessor_id for e in task.waits_for.all() if e.outcome is None]
        assert len(waits) == task.waits_on
        assert set(waits) <= live
    assert deadlocks() == before


def test_idle_workers_are_told_once_a_queue(make_task, make_worker, sql):
    make_worker("w")
    Worker.objects.filter(pk="w").update(idle_since=Worker.objects.get(pk="w").started_at)
    for name in ("a", "b"):
        Queue.objects.create(name=name)
    ids = [make_task("failed", queue_id=name).id for name in ("a", "b") for _ in range(30)]
    with psycopg.connect(database_url(), autocommit=True) as listener:
        listener.execute("LISTEN queue_tasks")
        operations.retry(ids, actor="a")
        told = sorted(n.payload for n in listener.notifies(timeout=10, stop_after=2))
        operations.move(ids, "b", actor="a")
        moved = [n.payload for n in listener.notifies(timeout=10, stop_after=1)]
        rest = list(listener.notifies(timeout=0))
    assert (told, moved, rest) == (["a", "b"], ["b"], [])
