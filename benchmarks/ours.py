"""OpsConsole in the benchmark: its verbs for enqueueing, its `manage.py runworker` for working."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MANAGE = str(Path(__file__).parent.parent / "manage.py")
TENANTS = 100
CHAIN = 10
Job = dict[str, Any]


class Ours:
    name = "ours"
    pending = """SELECT count(*) FROM tasks
        WHERE status IN ('pending', 'scheduled', 'blocked', 'processing')"""
    finished = "SELECT count(*) FROM tasks WHERE status = 'completed'"
    fill = """INSERT INTO tasks (type, payload)
        SELECT 'noop', jsonb_build_object('seq', s, 'pad', repeat('x', 72))
        FROM generate_series(%(lo)s::int, %(lo)s::int + %(n)s::int - 1) s"""

    def worker_command(self) -> list[str]:
        return [sys.executable, MANAGE, "runworker", "--queues", "default", "--concurrency", "1"]

    def open(self) -> None:
        import django

        django.setup()
        from queues import bulk, enqueue

        self.verbs, self.enqueue_batch = enqueue, bulk.enqueue_batch

    def setup(self) -> None:
        self.open()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)

    def enqueue_one(self, job: Job) -> None:
        self.verbs.enqueue("noop", job)

    def enqueue_bulk(self, jobs: list[Job]) -> None:
        self.enqueue_batch("noop", jobs)

    def enqueue_keyed(self, jobs: list[Job]) -> None:
        """Each with a dedupe key of its own."""
        self._many(jobs, lambda job: {"dedupe_key": f"key-{job['seq']}"})

    def enqueue_tenants(self, jobs: list[Job]) -> None:
        """Of 100 tenants, in blocks: a fair queue must mix them."""
        block = max(1, len(jobs) // TENANTS)
        self._many(jobs, lambda job: {"tenant_id": f"tenant-{job['seq'] // block % TENANTS}"})

    def enqueue_chains(self, jobs: list[Job]) -> None:
        """Chains of ten, each task after the one before it."""
        chains = -(-len(jobs) // CHAIN)
        last: list[Any] = []
        for start in range(0, len(jobs), chains):
            row = jobs[start : start + chains]
            before = iter(last)
            made = self._many(row, lambda _: {"after": [next(before)]} if last else {})  # noqa: B023
            last = [enqueued.id for enqueued in made]

    def _many(self, jobs: list[Job], options: Any = lambda job: {}) -> list[Any]:
        new = self.verbs.NewTask
        return self.verbs.enqueue_many(
            new(type="noop", payload=job, **options(job)) for job in jobs
        )
