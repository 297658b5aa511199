"""The floor: what bare psycopg does on a minimal table, claiming 100 and finishing 100 at a time."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import psycopg

TABLE = """
CREATE TABLE job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL DEFAULT 'default',
    state smallint NOT NULL DEFAULT 0,      -- 0 ready, 1 running, 2 done
    priority smallint NOT NULL DEFAULT 0,
    attempt smallint NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    worker text,
    payload jsonb NOT NULL
);
CREATE INDEX job_ready ON job (priority, id) WHERE state = 0;
"""
CLAIM = """
WITH c AS (
    SELECT id FROM job WHERE state = 0 ORDER BY priority, id LIMIT 100 FOR UPDATE SKIP LOCKED)
UPDATE job SET state = 1, started_at = now(), worker = %s, attempt = attempt + 1
FROM c WHERE job.id = c.id RETURNING job.id, job.payload
"""
FINISH = "UPDATE job SET state = 2, finished_at = now() WHERE id = ANY(%s)"


class Floor:
    name = "floor"
    pending = "SELECT count(*) FROM job WHERE state < 2"
    finished = "SELECT count(*) FROM job WHERE state = 2"
    fill = """INSERT INTO job (payload)
        SELECT jsonb_build_object('seq', s, 'pad', repeat('x', 72))
        FROM generate_series(%(lo)s::int, %(lo)s::int + %(n)s::int - 1) s"""

    def worker_command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.floor"]

    def open(self) -> None:
        self.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)

    def setup(self) -> None:
        self.open()
        self.connection.execute(TABLE)

    def enqueue_one(self, job: dict[str, Any]) -> None:
        self.connection.execute(
            "WITH i AS (INSERT INTO job (payload) VALUES (%s)) SELECT pg_notify('job', '')",
            (json.dumps(job),),
        )

    def enqueue_bulk(self, jobs: list[dict[str, Any]]) -> None:
        with self.connection.transaction(), self.connection.cursor() as cursor:
            with cursor.copy("COPY job (payload) FROM STDIN") as copy:
                for job in jobs:
                    copy.write_row((json.dumps(job),))
            cursor.execute("SELECT pg_notify('job', '')")


def work() -> None:
    """Work until SIGTERM."""
    from benchlog import record

    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    url, me = os.environ["DATABASE_URL"], str(os.getpid())
    with psycopg.connect(url, autocommit=True) as own, psycopg.connect(url, autocommit=True) as ear:
        ear.execute("LISTEN job")
        while not stop:
            rows = own.execute(CLAIM, (me,)).fetchall()
            if not rows:
                for _ in ear.notifies(timeout=0.5, stop_after=1):
                    pass
                continue
            for _, job in rows:
                record(job["seq"])
            own.execute(FINISH, ([row[0] for row in rows],))


if __name__ == "__main__":
    work()
