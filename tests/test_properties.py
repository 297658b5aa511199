"""Random interleavings of every verb by three sessions; after each, all rows are checked.

PROPERTY_EXAMPLES=2000 tries that many new histories instead of the same few.
"""

import os
from collections import defaultdict
from uuid import uuid4

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from queues.models import Queue
from tests.invariants import WAITING, broken_rules, check_step, execute, rows

GIVEN = int(os.environ.get("PROPERTY_EXAMPLES", "0"))
PROFILE = settings(
    max_examples=GIVEN or 60,
    stateful_step_count=50,
    derandomize=not GIVEN,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
QUEUES = {
    "plain": {},
    "capped": {"max_concurrent": 2},
    "tenants": {"max_per_tenant": 1},
    "fair": {"fair": True},
    "rated": {"rate_limit": 0.001, "burst": 3, "tokens": 3},
    "mixed": {"max_concurrent": 3, "max_per_tenant": 2, "fair": True},
}
sessions = st.integers(0, 2)
names = st.sampled_from(sorted(QUEUES))
tenants = st.sampled_from([None, None, "a", "a", "b", ""])
# Any of the tasks so far, by its place; most often one of the last.
places = st.lists(st.integers(0, 11) | st.integers(0, 60), min_size=1, max_size=4)
delays = st.sampled_from([None, None, None, "1 hour"])


class Verbs(RuleBasedStateMachine):
    """Each history is one transaction, rolled back at its end; every verb is a statement of it."""

    def __init__(self):
        super().__init__()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        Queue.objects.bulk_create(Queue(name=name, **rules) for name, rules in QUEUES.items())
        self.workers = ["s0", "s1", "s2"]
        self.ids, self.before = [], {}
        self.reports = [[], [], []]
        self.outcomes = defaultdict(list)
        self.rated = 0

    def teardown(self):
        try:
            self.all_ends()
        finally:
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    @initialize(session=sessions)
    def begins(self, session):
        for name in QUEUES:
            self.enqueue(name, 0, "a", None, [], "cancel", None, 5)

    def pick(self, at):
        return list(dict.fromkeys(self.ids[-1 - place % len(self.ids)] for place in at))

    # producers

    @rule(
        queue=names,
        priority=st.sampled_from([0, 0, 5]),
        tenant=tenants,
        key=st.sampled_from([None, None, None, "k"]),
        after=st.just([]) | places,
        on_failure=st.sampled_from(["cancel", "run"]),
        delay=delays,
        most=st.sampled_from([1, 2, 5]),
    )
    def enqueue(self, queue, priority, tenant, key, after, on_failure, delay, most):
        after = self.pick(after) if after else []
        [(id, created)] = execute(
            "SELECT * FROM enqueue_task('t', '{}', %s, %s, clock_timestamp() + %s::interval, %s,"
            " %s::uuid[], %s, %s, %s)",
            *(queue, priority, delay, key, after, on_failure, tenant, most),
        )
        assert created == (id not in self.ids)
        if created:
            self.ids.append(id)

    @rule(queue=names, tenant=tenants, count=st.integers(1, 5))
    def enqueue_many(self, queue, tenant, count):
        made = execute(
            "SELECT id FROM enqueue_tasks((SELECT jsonb_agg(jsonb_build_object("
            "'type', 't', 'queue', %s::text, 'tenant_id', %s::text)) FROM generate_series(1, %s)))",
            *(queue, tenant, count),
        )
        self.ids += [id for (id,) in made]

    # workers

    @rule(
        session=sessions,
        limit=st.integers(1, 6),
        queues=st.none() | st.lists(names, min_size=1, max_size=3, unique=True),
    )
    def claim(self, session, limit, queues):
        held = execute(
            "SELECT id, lease FROM claim_tasks(%s, %s, %s)", self.workers[session], queues, limit
        )
        assert len(held) <= limit
        self.reports[session] += held
        self.check_claimed(dict(held), queues)

    def check_claimed(self, leases, queues):
        """What was claimed is what was given, and no rule of its queue forbade it."""
        after = rows()
        claimed = [id for id, row in after.items() if row.lease > self.before[id].lease]
        assert {id: after[id].lease for id in claimed} == leases
        running = [row for row in after.values() if row.status == "processing"]
        for name in {after[id].queue for id in claimed}:
            queue = Queue.objects.get(pk=name)
            assert not queue.paused
            assert queues is None or name in queues
            there = [row for row in running if row.queue == name]
            assert len(there) <= (queue.max_concurrent or len(there))
            for id in claimed:
                same = [row for row in there if (row.queue, row.tenant) == after[id][2:4]]
                assert len(same) <= (queue.max_per_tenant or len(same))
        self.rated += sum(after[id].queue == "rated" for id in claimed)
        assert self.rated <= QUEUES["rated"]["burst"]

    @rule(
        session=sessions, at=places, how=st.sampled_from(["complete", "fail", "final", "release"])
    )
    def report(self, session, at, how):
        """Also late ones and repeated ones: a session reports whatever it was ever given."""
        known = self.reports[session]
        held = {known[-1 - place % len(known)] for place in at} if known else set()
        held = list(dict(sorted(held, reverse=True)).items())
        ids, leases = [id for id, _ in held], [lease for _, lease in held]
        call = {
            "complete": "complete_tasks(%s::uuid[], %s::bigint[])",
            "release": "release_tasks(%s::uuid[], %s::bigint[])",
            "fail": "fail_tasks(%s::uuid[], %s::bigint[], array_fill('{}'::jsonb, ARRAY[4]))",
            "final": "fail_tasks(%s::uuid[], %s::bigint[], array_fill('{}'::jsonb, ARRAY[4]), NULL,"
            " array_fill(true, ARRAY[4]))",
        }[how]
        answers = execute(f"SELECT id, outcome FROM {call} WHERE id IS NOT NULL", ids, leases)
        assert sorted(id for id, _ in answers) == sorted(ids)
        for id, outcome in answers:
            was = self.before[id]
            held_now = (was.status, was.lease) == ("processing", dict(held)[id])
            assert (outcome == "recorded") == held_now, (outcome, was)
            if outcome == "recorded":
                self.outcomes[id, was.lease].append(how)

    @rule(session=sessions, at=places)
    def heartbeat(self, session, at):
        known = self.reports[session]
        held = [known[-1 - place % len(known)] for place in at] if known else []
        [(_, lost)] = execute(
            "SELECT status, lost FROM heartbeat(%s, %s::uuid[], %s::bigint[])",
            *(self.workers[session], [id for id, _ in held], [lease for _, lease in held]),
        )
        for id, lease in held:
            row = self.before[id]
            if (row.archived, row.status, row.lease) != (False, "processing", lease):
                assert id in lost

    @rule(session=sessions, another_claims=st.booleans())
    def worker_dies(self, session, another_claims):
        """What it had goes back, and perhaps to another; its session may still report it."""
        execute(
            "UPDATE workers SET status = 'gone' WHERE id = %s RETURNING 1", self.workers[session]
        )
        self.workers[session] = f"s-{uuid4()}"
        if another_claims:
            execute("SELECT id FROM rescue_lost()")
            self.time_passes()
            self.all_rows_are_right()
            self.claim((session + 1) % 3, 6, None)

    # time and upkeep

    @rule()
    def rescue_lost(self):
        execute("SELECT id FROM rescue_lost()")

    @rule()
    def promote_due(self):
        execute("SELECT promote_due()")

    @rule()
    def time_passes(self):
        execute(
            "UPDATE tasks SET run_at = clock_timestamp() - interval '1 s' WHERE status = 'scheduled' RETURNING 1"
        )

    @rule()
    def days_pass(self):
        execute(
            "UPDATE tasks SET completed_at = completed_at - interval '40 days'"
            " WHERE status IN ('completed', 'failed', 'cancelled') RETURNING 1"
        )
        execute("SELECT archive_finished()")

    # operators

    @rule(
        at=places,
        verb=st.sampled_from(
            [
                "retry_tasks(%s)",
                "retry_tasks(%s, true)",
                "requeue_tasks(%s)",
                "requeue_tasks(%s, NULL, true)",
                "rescue_tasks(%s)",
                "release_held(%s, 'r')",
                "cancel_tasks(%s)",
                "set_priority(%s, 3)",
                "run_again(%s)",
            ]
        ),
    )
    def act(self, at, verb):
        ids = self.pick(at)
        items = execute(f"SELECT id, outcome, before, after, note FROM {verb}", ids)
        assert {id for id, *_ in items} >= set(ids)
        now = rows()
        for id, outcome, before, after, note in items:
            assert after == "" or after == now[id].status
            assert bool(outcome == "done") or note
            assert before in ("", self.before[id].status)
        self.ids += [id for id in now if id not in self.before]

    @rule(at=places, queue=names)
    def move(self, at, queue):
        ids = self.pick(at)
        waiting = {id for id in ids if self.before[id].status in WAITING}
        execute("SELECT id FROM move_tasks(%s, %s)", ids, queue)
        assert all((row.queue == queue) for id, row in rows().items() if id in waiting)

    @rule(queue=names, verb=st.sampled_from(["pause_queue", "resume_queue"]))
    def pause_or_resume(self, queue, verb):
        execute(f"SELECT outcome FROM {verb}(%s)", queue)

    @rule(queue=st.sampled_from(["capped", "mixed"]), cap=st.integers(1, 3))
    def set_cap(self, queue, cap):
        Queue.objects.filter(pk=queue).update(max_concurrent=cap)

    # what holds

    @invariant()
    def all_rows_are_right(self):
        after = rows()
        check_step(self.before, after)
        assert broken_rules() == []
        self.before = after

    @invariant()
    def each_lease_has_one_outcome(self):
        assert all(len(outcomes) == 1 for outcomes in self.outcomes.values())
        completed = {
            (id, row.lease) for id, row in self.before.items() if row.status == "completed"
        }
        assert completed == {key for key, how in self.outcomes.items() if how == ["complete"]}

    def all_ends(self):
        """Without limits and with living workers every task reaches its end, dependants too."""
        Queue.objects.update(
            paused=False, max_concurrent=None, max_per_tenant=None, rate_limit=None
        )
        execute("UPDATE workers SET status = 'gone' RETURNING 1")
        for _ in range(200):
            execute("SELECT id FROM rescue_lost()")
            self.time_passes()
            execute("SELECT set_config('opsconsole.claim_heads', '', false)")
            held = execute("SELECT id, lease FROM claim_tasks(%s, NULL, 1000)", str(uuid4()))
            execute(
                "SELECT id FROM complete_tasks(%s::uuid[], %s::bigint[])",
                *([id for id, _ in held], [lease for _, lease in held]),
            )
            live = [row for row in rows().values() if row.status in (*WAITING, "processing")]
            if not live:
                break
        assert live == []
        assert broken_rules() == []


@pytest.mark.django_db(transaction=True)
def test_verbs_in_any_order_keep_every_rule():
    connection.ensure_connection()
    run_state_machine_as_test(Verbs, settings=PROFILE)
