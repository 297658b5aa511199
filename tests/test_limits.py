"""A queue's limits under fifty claimers, each on a connection of its own, judged from the rows."""

import random
import threading
import time
from collections import defaultdict
from functools import partial

import psycopg
import pytest
from django.db import connection, transaction

from benchmarks.storm_verdict import fullest_window, running_at_starts
from queues import claims, operations
from queues.claims import Success
from queues.enqueue import NewTask, enqueue, enqueue_many
from queues.models import Queue, Task, Worker
from tests.conftest import database_url, eventually

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMERS = 50


@pytest.fixture
def queue(transactional_db):
    """Make the queue `q` with these rules."""

    def make(**rules):
        return Queue.objects.create(name="q", **rules)

    return make


def fill(count, queue="q", **options):
    if count == 1:
        return [enqueue("t", queue=queue, **options).id]
    return [
        made.id
        for made in enqueue_many(NewTask(type="t", queue=queue, **options) for _ in range(count))
    ]


@pytest.fixture
def crowd(at_once):
    """Fifty sessions claim from `q`, hold each task for a moment and complete it, for some seconds and
    until `other` has returned.

    Gives (when the claim began, the tasks) of every claim, by the database's clock.
    """

    def run(seconds, other=lambda: None):
        until = time.monotonic() + seconds
        calls, ended = [], threading.Event()

        def beside():
            try:
                other()
            finally:
                ended.set()

        def work(number):
            pick = random.Random(number)
            with psycopg.connect(database_url(), autocommit=True) as db:
                while time.monotonic() < until or not ended.is_set():
                    rows = db.execute(
                        "SELECT statement_timestamp(), id, lease FROM claim_tasks(%s, '{q}', %s)",
                        [f"w{number}", pick.randint(1, 3)],
                    ).fetchall()
                    run.asked.append(number)
                    if not rows:
                        time.sleep(pick.random() * 0.02)
                        continue
                    calls.append((rows[0][0], [id for _, id, _ in rows]))
                    time.sleep(0.01 + pick.random() * 0.02)
                    db.execute(
                        "SELECT * FROM complete_tasks(%s, %s)",
                        [[id for _, id, _ in rows], [lease for *_, lease in rows]],
                    )

        at_once(*(partial(work, number) for number in range(CLAIMERS)), beside)
        return calls

    def ask_on():
        """Wait until the crowd has asked some hundred times more."""
        before = len(run.asked)
        eventually(lambda: len(run.asked) > before + 4 * CLAIMERS)

    run.asked, run.ask_on = [], ask_on
    return run


def spans(**filters):
    return Task.objects.filter(status="completed", **filters).values_list(
        "started_at", "completed_at"
    )


def done():
    return Task.objects.filter(status="completed").count()


def most_at_once(**filters):
    return max((running for _, running in running_at_starts(spans(**filters))), default=0)


def test_a_queues_cap_is_reached_and_never_exceeded(queue, crowd):
    queue(max_concurrent=3)
    fill(2000)
    crowd(1.5, lambda: eventually(lambda: done() > 50))
    assert most_at_once() == 3


def test_a_cap_that_changes_holds_from_the_next_claim_on(queue, crowd):
    """The change locks the queue's row as a claim does, so that each claim was before or after it."""
    queue(max_concurrent=3)
    fill(4000)
    changes = []

    def in_use():
        """Wait until the cap that holds now has been reached, and the crowd has asked for more."""
        cap = Queue.objects.get(name="q").max_concurrent
        eventually(lambda: Task.objects.filter(status="processing").count() == cap)
        crowd.ask_on()

    def change():
        with psycopg.connect(database_url()) as db:
            for cap in (1, 5, 2, 4):
                in_use()
                db.execute("UPDATE queues SET max_concurrent = %s WHERE name = 'q'", [cap])
                changes.append((db.execute("SELECT clock_timestamp()").fetchone()[0], cap))
                db.commit()
        in_use()

    crowd(0, change)
    reached = defaultdict(int)
    for at, running in running_at_starts(spans()):
        cap = [3, *(cap for since, cap in changes if since < at)][-1]
        assert running <= cap
        reached[cap] = max(reached[cap], running)
    assert reached[1] == 1
    assert reached[5] > 3


@pytest.mark.parametrize("fair", [False, True])
def test_a_tenants_cap_is_reached_and_never_exceeded(queue, crowd, fair):
    """Tasks that go before all that wait arrive meanwhile: claimers see different ones as the next."""
    queue(max_per_tenant=2, fair=fair)
    tenants = ("a", "b", "c", None)

    def urgent():
        for priority in range(60):
            for tenant in tenants:
                fill(4, tenant_id=tenant, priority=priority)

    for tenant in tenants:
        fill(400, tenant_id=tenant)
    crowd(1.5, urgent)
    assert [most_at_once(tenant_id=tenant) for tenant in tenants] == [2, 2, 2, 2]


def test_tasks_without_a_tenant_share_one_count(queue):
    queue(max_per_tenant=2)
    fill(5)
    claims.query(
        "SELECT enqueue_task('t', p_queue => 'q', p_tenant_id => '') FROM generate_series(1, 5)", []
    )
    assert len(claims.claim_tasks("w", ["q"], 10)) == 2
    assert claims.claim_tasks("w", ["q"], 10) == []


def test_no_window_of_time_has_more_claims_than_the_rate_and_burst_allow(queue, crowd):
    queue(rate_limit=100, burst=10, tokens=10)
    fill(2000)
    calls = crowd(2, lambda: eventually(lambda: done() > 100))
    begun = {id: at for at, ids in calls for id in ids}
    started = [
        (begun[id], at, None)
        for id, at in Task.objects.filter(status="completed")
        .order_by("started_at")
        .values_list("id", "started_at")
    ]
    assert fullest_window(started, 100) <= 10 + 1e-6
    assert len(started) > 100


@pytest.mark.parametrize("rules", [{}, {"max_concurrent": 20}], ids=["plain", "capped"])
def test_no_claim_that_begins_after_a_pause_has_committed_takes_a_task(queue, crowd, rules):
    queue(**rules)
    fill(6000)
    moments = []

    def pause():
        # No claim takes more than three.
        eventually(lambda: done() > 60)
        operations.pause("q", actor="a")
        moments.append(claims.query("SELECT clock_timestamp()", [])[0][0])
        crowd.ask_on()

    calls = crowd(1.2, pause)
    assert Task.objects.filter(status="pending").exists()
    assert max(at for at, _ in calls) <= moments[0]
    assert len(calls) > 20


def test_one_queues_spare_tokens_do_not_hide_when_anothers_come(queue):
    Queue.objects.create(name="spare", rate_limit=1000, burst=1000, tokens=1000, max_concurrent=1)
    fill(5, "spare")
    assert len(claims.claim_tasks("w", ["spare"], 5)) == 1
    assert claims.limits_wait(["spare"]) == (True, None)
    queue(rate_limit=0.1, burst=1, tokens=1)
    fill(5)
    assert len(claims.claim_tasks("w", ["q"], 5)) == 1
    waiting, seconds = claims.limits_wait(None)
    assert waiting
    assert 5 < seconds <= 10


def test_a_backlog_behind_a_rate_makes_a_worker_deaf_for_no_other_queue(queue, run_worker):
    queue(rate_limit=0.01, burst=1, tokens=0)
    fill(5)
    run_worker("--queues", "q,default", QUEUE_POLL_SECONDS="3600").started()
    eventually(lambda: Worker.objects.filter(idle_since__isnull=False).exists())
    made = [enqueue("echo", n).id for n in range(3)]
    eventually(lambda: Task.objects.filter(pk__in=made, status="completed").count() == 3)


def test_a_tenants_flood_holds_up_no_other(queue):
    queue(fair=True)
    fill(2000, tenant_id="flood")
    few = set(fill(10, tenant_id="few"))
    first = claims.claim_tasks("w", ["q"], 25)
    assert few <= {task.id for task in first}


@pytest.mark.parametrize("size", [1, 50], ids=["one by one", "at once"])
def test_tenants_take_turns(queue, size):
    queue(fair=True)
    for tenant in ("a", "b", "c"):
        for _ in range(50 // size):
            fill(size, tenant_id=tenant)
    order = [task.tenant_id for task in claims.claim_tasks("w", ["q"], 150)]
    assert all(sorted(order[n : n + 3]) == ["a", "b", "c"] for n in range(0, 150, 3))


COUNT_NEXT_ROUND = """
CREATE SEQUENCE asked;
ALTER FUNCTION next_round(text, text, integer) RENAME TO next_round_itself;
CREATE FUNCTION next_round(text, text, integer) RETURNS bigint LANGUAGE sql
AS 'SELECT next_round_itself($1, $2, $3) FROM nextval(''asked'')';
"""


def test_many_tasks_ask_for_their_tenants_rounds_once_a_tenant(queue):
    queue(fair=True)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(COUNT_NEXT_ROUND)
        enqueue_many(NewTask(type="t", queue="q", tenant_id=f"t{n % 20}") for n in range(1000))
        cursor.execute("SELECT last_value FROM asked")
        assert cursor.fetchone() == (20,)
        transaction.set_rollback(True)


def test_what_is_moved_retried_or_run_again_takes_its_turn_too(queue):
    queue(fair=True)
    Queue.objects.create(name="other")
    fill(200, tenant_id="waits")
    held = [(task.id, task.lease) for task in claims.claim_tasks("w", ["q"], 100)]
    claims.complete_tasks([Success(id, lease) for id, lease in held[:50]])
    ids = [id for id, _ in held]
    operations.cancel(ids[50:], actor="a")
    few = fill(5, tenant_id="few")
    operations.move(fill(100, "other", tenant_id="flood"), "q", actor="a")
    operations.retry(ids[50:], actor="a")
    operations.run_again(ids[:50], actor="a")
    assert set(few) <= {task.id for task in claims.claim_tasks("w", ["q"], 20)}


@pytest.mark.parametrize("tenant", ["late", None, ""])
def test_a_tenant_at_its_cap_starves_nobody_behind_it(queue, tenant):
    queue(max_per_tenant=1)
    fill(3000, tenant_id="flood")
    [held] = claims.claim_tasks("w", ["q"], 10)
    [(last, _)] = claims.query(
        "SELECT * FROM enqueue_task('t', p_queue => 'q', p_tenant_id => %s)", [tenant]
    )
    assert [task.id for task in claims.claim_tasks("w", ["q"], 10)] == [last]
    claims.complete_tasks([Success(held.id, held.lease)])
    assert [task.tenant_id for task in claims.claim_tasks("w", ["q"], 10)] == ["flood"]


def test_a_task_that_moves_is_never_claimed_through_the_queue_it_left(queue, at_once):
    """Its new queue is paused: whoever looked at the old one must not take it."""
    queue(max_per_tenant=1000)
    Queue.objects.create(name="closed", paused=True)
    ids = [id for tenant in range(6) for id in fill(300, tenant_id=f"t{tenant}")]
    done, queues = threading.Event(), set()

    def move():
        for n in range(0, len(ids), 20):
            operations.move(ids[n : n + 20][::-1], "closed", actor="a")
        done.set()

    def claim(worker):
        while not done.is_set():
            tasks = claims.claim_tasks(worker, ["q"], 2)
            queues.update(task.queue for task in tasks)
            claims.release_tasks([(task.id, task.lease) for task in tasks])

    at_once(move, *(partial(claim, f"w{n}") for n in range(6)))
    assert queues == {"q"}
    assert Task.objects.filter(queue="closed").exists()
