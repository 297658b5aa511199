"""Races, on real connections: a thread, a connection and a start at one barrier each."""

from collections import Counter
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.errors import DeadlockDetected

from queues import claims, operations
from queues.claims import Failure, Success
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker
from tests.conftest import database_url, eventually

pytestmark = pytest.mark.django_db(transaction=True)


def drain(worker, batch=7):
    """Claim until nothing is left; the ids in the order they came."""
    ids = []
    while tasks := claims.claim_tasks(worker, None, batch):
        ids += [task.id for task in tasks]
    return ids


@pytest.mark.parametrize("batch", [7, 150], ids=["small claims", "large claims"])
def test_a_hundred_sessions_claim_five_thousand_tasks_exactly_once(at_once, batch):
    made = {enqueued.id for enqueued in enqueue_many(NewTask(type="t") for _ in range(5000))}
    taken = at_once(*(partial(drain, f"w{n}", batch) for n in range(100)))
    counts = Counter(id for ids in taken for id in ids)
    assert set(counts) == made
    assert set(counts.values()) == {1}
    assert set(Task.objects.values_list("status", "lease", "attempts")) == {("processing", 1, 1)}


def test_existing_callers_race_for_one_task_and_one_gets_it(at_once, sql):
    def claim_next():
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM claim_next_task()")
            return cursor.fetchall()

    made = enqueue("t")
    rows = at_once(*[claim_next] * 30)
    assert [r for r in rows if r] == [[(made.id,)]]


def test_a_cap_holds_under_racing_claimers(at_once):
    Queue.objects.filter(name="default").update(max_concurrent=3)
    enqueue_many(NewTask(type="t") for _ in range(200))
    seen = []

    def work(worker):
        done = 0
        while True:
            tasks = claims.claim_tasks(worker, None, 2)
            if tasks:
                seen.append(Task.objects.filter(status="processing").count())
                claims.complete_tasks([Success(t.id, t.lease) for t in tasks])
                done += len(tasks)
            elif not Task.objects.filter(status__in=["pending", "processing"]).exists():
                return done

    assert sum(at_once(*(partial(work, f"w{n}") for n in range(16)))) == 200
    assert max(seen) <= 3


def test_a_child_enqueued_while_its_parent_finishes_never_waits_for_ever(at_once):
    for _ in range(40):
        parent = enqueue("parent")
        [held] = claims.claim_tasks("w", None, 1)
        _, child = at_once(
            lambda held=held: claims.complete_tasks([Success(held.id, held.lease)]),
            lambda parent=parent: enqueue("child", after=[parent.id]),
        )
        assert Task.objects.get(pk=child.id).status == "pending"
        Task.objects.all().delete()


def test_many_enqueues_of_one_dedupe_key_make_one_task(at_once):
    made = at_once(*[partial(enqueue, "t", dedupe_key="k")] * 30)
    assert len({enqueued.id for enqueued in made}) == 1
    assert sum(enqueued.created for enqueued in made) == 1
    assert Task.objects.count() == 1


def test_rescuers_race_and_each_task_comes_back_once(at_once):
    enqueue_many(NewTask(type="t") for _ in range(300))
    claims.claim_tasks("dead", None, 300)
    Worker.objects.filter(pk="dead").update(status="gone")
    rescued = at_once(*[partial(claims.query, "SELECT id FROM rescue_lost()", [])] * 8)
    counts = Counter(id for rows in rescued for (id,) in rows)
    assert len(counts) == 300
    assert set(counts.values()) == {1}
    assert set(Task.objects.values_list("lost", flat=True)) == {1}


def test_a_task_that_finishes_while_it_is_rescued_as_poison_stays_finished(at_once, make_task):
    Worker.objects.create(id="w", status="gone")
    task = make_task("processing", worker_id="w", lost=2)
    with Paused() as finisher:
        finisher.run(COMPLETE, task.id, task.lease)

        def commit():
            eventually(_waiting_for_locks)
            finisher.commit()

        rescued, _ = at_once(lambda: claims.query("SELECT * FROM rescue_lost()", []), commit)
    assert rescued == []
    assert Task.objects.get().status == "completed"


def test_tasks_that_fall_due_are_promoted_by_many_and_claimed_once(at_once):
    made = {
        m.id
        for m in enqueue_many(NewTask(type="t", run_at=timedelta(hours=1)) for _ in range(1500))
    }
    Task.objects.update(run_at=timezone.now())
    taken = at_once(*(partial(drain, f"w{n}") for n in range(12)))
    counts = Counter(id for ids in taken for id in ids)
    assert set(counts) == made
    assert set(Task.objects.values_list("status", "lease", "attempts")) == {("processing", 1, 1)}


def test_one_of_finish_cancel_and_rescue_wins(at_once):
    for _ in range(20):
        enqueue("t")
        [held] = claims.claim_tasks("w", None, 1)
        Worker.objects.filter(pk="w").update(status="gone")
        finished, _, _ = at_once(
            lambda held=held: claims.complete_tasks([Success(held.id, held.lease)])[held.id],
            lambda held=held: operations.cancel([held.id], actor="a"),
            lambda: claims.query("SELECT * FROM rescue_lost()", []),
        )
        task = Task.objects.get()
        assert (finished == "recorded") == (task.status == "completed")
        assert task.status in ("completed", "cancelled", "scheduled")
        Task.objects.all().delete()


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


def test_overlapping_batches_of_every_verb_never_deadlock(at_once, deadlocks):
    """Chains and shared predecessors, finished, failed, cancelled and retried in clashing orders."""
    before = deadlocks()
    parents = enqueue_many(NewTask(type="p") for _ in range(60))
    ids = [parent.id for parent in parents]
    children = enqueue_many(
        NewTask(type="c", after=[ids[n], ids[(n * 7 + 3) % 60], ids[-1 - n]]) for n in range(60)
    )
    enqueue_many(NewTask(type="g", after=[children[-1 - n].id, ids[n]]) for n in range(60))
    held = claims.claim_tasks("w", None, 60)
    mixed = list(Task.objects.order_by("?").values_list("id", flat=True))
    at_once(
        lambda: claims.complete_tasks([Success(t.id, t.lease) for t in held[::2]]),
        lambda: claims.complete_tasks([Success(t.id, t.lease) for t in reversed(held[::2])]),
        lambda: claims.fail_tasks(
            [Failure(t.id, t.lease, "E", "m", final=True) for t in held[1::2]]
        ),
        lambda: operations.cancel(mixed[:90], actor="a"),
        lambda: operations.cancel(mixed[60:][::-1], actor="a"),
        lambda: operations.retry(mixed[::-1], actor="a", dependants=True),
        lambda: [enqueue("late", after=ids[n : n + 5]) for n in range(40)],
    )
    blocked = Task.objects.filter(status="blocked")
    live = set(Task.objects.filter(status__in=Task.LIVE).values_list("id", flat=True))
    for task in blocked.prefetch_related("waits_for"):
        waits = [e.predecessor_id for e in task.waits_for.all() if e.outcome is None]
        assert len(waits) == task.waits_on
        assert set(waits) <= live
    assert deadlocks() == before


def test_an_enqueue_in_an_open_transaction_does_not_hold_up_claims(at_once):
    Queue.objects.filter(name="default").update(max_concurrent=5)
    enqueue("seen")
    with transaction.atomic():
        enqueue("open")
        [claimed] = at_once(lambda: claims.claim_tasks("w", None, 10))
    assert [task.type for task in claimed] == ["seen"]


class Paused:
    """Another session's transaction, held open between its statements."""

    def __init__(self, isolation="READ COMMITTED"):
        self.connection = psycopg.connect(database_url(), autocommit=True)
        self.connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        self.connection.execute("SELECT count(*) FROM tasks")

    def __enter__(self):
        return self

    def run(self, statement, *params):
        return self.connection.execute(statement, params).fetchall()

    def commit(self):
        self.connection.execute("COMMIT")

    def __exit__(self, *error):
        self.connection.close()


COMPLETE = "SELECT * FROM complete_tasks(ARRAY[%s], ARRAY[%s])"
RETRY = "SELECT * FROM retry_tasks(ARRAY[%s])"


@pytest.mark.parametrize("first", ["complete", "retry"])
def test_a_dependant_retried_while_its_predecessor_finishes_is_not_left_blocked(at_once, first):
    parent = enqueue("p", max_attempts=1)
    child = enqueue("c", after=[parent.id])
    [held] = claims.claim_tasks("w", None, 1)
    claims.fail_tasks([Failure(held.id, held.lease, "E", "m")])
    operations.retry([parent.id], actor="a")
    [held] = claims.claim_tasks("w", None, 1)
    acts = {"complete": (COMPLETE, held.id, held.lease), "retry": (RETRY, child.id)}
    second = next(name for name in acts if name != first)
    with Paused() as open_one:
        open_one.run(*acts.pop(first))
        finished = []

        def other():
            with connection.cursor() as cursor:
                cursor.execute(acts[second][0], acts[second][1:])
            finished.append(second)

        def release():
            eventually(lambda: _waiting_for_locks() or finished)
            open_one.commit()

        at_once(other, release)
    task = Task.objects.get(pk=child.id)
    assert (task.status, task.waits_on) == ("pending", 0)


@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_a_finish_locks_in_the_one_order_of_all_verbs(at_once, deadlocks, ending):
    """A dependant stands between its two tasks: it must not hold the later one while it waits."""
    before = deadlocks()
    first = enqueue("p")
    child = enqueue("c", after=[first.id])
    last = enqueue("p")
    held = claims.claim_tasks("w", None, 2)
    with Paused() as holder:
        holder.run("SELECT FROM tasks WHERE id = %s FOR UPDATE", child.id)

        def finish():
            eventually(lambda: _waiting_for_locks() == 1)
            if ending == "completed":
                return claims.complete_tasks([Success(t.id, t.lease) for t in held])
            failures = [Failure(t.id, t.lease, "E", "m", final=True) for t in held]
            return {id: said.outcome for id, said in claims.fail_tasks(failures).items()}

        def commit():
            eventually(lambda: _waiting_for_locks() == 2)
            holder.commit()

        operation, outcomes, _ = at_once(
            lambda: operations.cancel([child.id, last.id], actor="a"), finish, commit
        )
    assert operation.done == 2
    assert outcomes == {first.id: "recorded", last.id: "stale"}
    assert deadlocks() == before


def _waiting_for_locks():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return cursor.fetchone()[0]


def test_a_finish_from_an_old_snapshot_is_refused(sql):
    parent = enqueue("p")
    [held] = claims.claim_tasks("w", None, 1)
    with Paused("REPEATABLE READ") as old:
        child = enqueue("c", after=[parent.id])
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="needs READ COMMITTED"):
            old.run(COMPLETE, held.id, held.lease)
    assert claims.complete_tasks([Success(held.id, held.lease)]) == {held.id: "recorded"}
    assert Task.objects.get(pk=child.id).status == "pending"


def test_claimers_of_capped_queues_in_clashing_orders_do_not_deadlock(at_once, deadlocks):
    names = ["a", "b", "c"]
    for name in names:
        Queue.objects.create(name=name, max_concurrent=2)
    enqueue_many(NewTask(type="t", queue=names[n % 3]) for n in range(240))

    def work(order):
        done = 0
        while Task.objects.filter(status__in=["pending", "processing"]).exists():
            tasks = claims.claim_tasks(f"w{order}", order, 3)
            claims.complete_tasks([Success(t.id, t.lease) for t in tasks])
            done += len(tasks)
        return done

    before = deadlocks()
    orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"], ["a", "c", "b"]]
    assert sum(at_once(*(partial(work, order) for order in orders))) == 240
    assert deadlocks() == before


@pytest.mark.parametrize("gone", [False, True], ids=["others", "gone"])
def test_a_claim_that_waits_for_a_limited_queue_holds_no_task_meanwhile(at_once, make_worker, gone):
    """Else others could neither claim nor cancel it, and a worker declared gone would get it."""
    make_worker("waits")
    Queue.objects.create(name="a-plain")
    Queue.objects.create(name="b-capped", max_concurrent=3)
    plain = [enqueue("t", queue="a-plain", max_attempts=1).id for _ in range(3)]
    capped = enqueue("t", queue="b-capped").id
    taken = []
    with psycopg.connect(database_url()) as holder:
        holder.execute("SELECT FROM queues WHERE name = 'b-capped' FOR UPDATE")

        def waits():
            taken.extend(claims.claim_tasks("waits", ["a-plain", "b-capped"], 5))

        def meanwhile():
            eventually(lambda: waiting_for_a_lock() == 1)
            if gone:
                claims.unregister_worker("waits")
            else:
                assert len(claims.claim_tasks("other", ["a-plain"], 2)) == 2
                assert operations.cancel(plain[2:], actor="a").done == 1
            holder.rollback()

        at_once(waits, meanwhile)
    assert [task.id for task in taken] == ([] if gone else [capped])


def waiting_for_a_lock():
    [(count,)] = claims.query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'",
        [],
    )
    return count


def test_an_operators_act_survives_a_deadlock(at_once, monkeypatch):
    """The first try of two acts in opposite orders loses; the second goes through."""
    one, two = enqueue("t"), enqueue("t")
    tries = []
    carry_out = operations._carry_out

    def conflicting(*args):
        tries.append(args)
        if len(tries) == 1:
            raise OperationalError from DeadlockDetected()
        return carry_out(*args)

    monkeypatch.setattr(operations, "_carry_out", conflicting)
    assert operations.cancel([one.id, two.id], actor="a").done == 2
    assert len(tries) == 2
