"""Races, on real connections: a thread, a connection and a start at one barrier each."""

from collections import Counter
from functools import partial

import pytest
from django.db import connection, transaction

from queues import claims, operations
from queues.claims import Failure, Success
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker

pytestmark = pytest.mark.django_db(transaction=True)


def drain(worker, batch=7):
    """Claim until nothing is left; the ids in the order they came."""
    ids = []
    while tasks := claims.claim_tasks(worker, None, batch):
        ids += [task.id for task in tasks]
    return ids


def test_a_hundred_sessions_claim_five_thousand_tasks_exactly_once(at_once):
    made = {enqueued.id for enqueued in enqueue_many(NewTask(type="t") for _ in range(5000))}
    taken = at_once(*(partial(drain, f"w{n}") for n in range(100)))
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


def test_overlapping_batches_of_every_verb_never_deadlock(at_once, sql):
    """Chains and shared predecessors, finished, failed, cancelled and retried in clashing orders."""
    [(before,)] = sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
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
    sql("SELECT pg_stat_clear_snapshot()")
    [(after,)] = sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert after == before


def test_an_enqueue_in_an_open_transaction_does_not_hold_up_claims(at_once):
    Queue.objects.filter(name="default").update(max_concurrent=5)
    enqueue("seen")
    with transaction.atomic():
        enqueue("open")
        [claimed] = at_once(lambda: claims.claim_tasks("w", None, 10))
    assert [task.type for task in claimed] == ["seen"]
