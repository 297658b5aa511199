"""Fixtures: real rows by a factory, real connections in threads, real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from opsconsole import embedded_postgres
from queues.models import Task, Worker
from tests import settings as tests_settings

ROOT = Path(__file__).parent.parent


def pytest_xdist_setupnodes() -> None:
    """Let each process that runs tests start a server of its own: roles, locks and crashes are a server's."""
    if tests_settings.EMBEDDED:
        del os.environ["DATABASE_URL"]
        embedded_postgres.stop(Path(os.environ.pop("OPSCONSOLE_TESTS_HOME")))


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """The console's snapshot is kept for some seconds, also from one test to the next."""
    cache.clear()


@pytest.fixture
def make_worker(db: None) -> Callable[..., Worker]:
    def make(id: str = "w1", **fields: Any) -> Worker:
        fields.setdefault("kind", "process")
        if fields["kind"] == "process":
            fields.setdefault("heartbeat_at", timezone.now())
        return Worker.objects.create(id=id, **fields)

    return make


@pytest.fixture
def make_task(db: None) -> Callable[..., Task]:
    """A task in any state, with all that the state implies: a running one has a worker and lease."""

    def make(status: str = "pending", **fields: Any) -> Task:
        now = timezone.now()
        implied: dict[str, Any] = {"type": "test", "status": status}
        if status == "scheduled":
            implied["run_at"] = now + timedelta(hours=1)
        if status == "blocked":
            implied["waits_on"] = 1
        if status in ("processing", "completed", "failed"):
            implied |= {"worker_id": "w1", "lease": 1, "attempts": 1, "started_at": now}
            Worker.objects.get_or_create(
                id=fields.get("worker_id", "w1"), defaults={"kind": "process", "heartbeat_at": now}
            )
        if status in Task.FINAL:
            implied["completed_at"] = now
        if status == "failed":
            implied |= {"error": "ValueError: broken", "error_fingerprint": "f1"}
        task = Task.objects.create(**implied | fields)
        task.refresh_from_db()
        return task

    return make


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """Run each callable in a thread and on a connection of its own, started by one barrier."""

    def run(*calls: Callable[[], Any]) -> list[Any]:
        barrier = threading.Barrier(len(calls))

        def one(call: Callable[[], Any]) -> Any:
            try:
                connection.ensure_connection()
                barrier.wait(timeout=60)
                return call()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(calls)) as pool:
            return [future.result() for future in [pool.submit(one, call) for call in calls]]

    return run


@pytest.fixture
def sql(db: None) -> Callable[..., list[tuple[Any, ...]]]:
    """Run SQL as a foreign client would write it."""

    def run(statement: str, *params: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, params or None)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def user_in(db: None) -> Callable[[str], User]:
    """A member of staff in one of the groups."""

    def make(group: str) -> User:
        user = User.objects.create_user(group, password="pw", is_staff=True)
        user.groups.add(Group.objects.get(name=group))
        return user

    return make


@pytest.fixture
def client_of(user_in: Callable[[str], User]) -> Callable[[str], Client]:
    def make(group: str) -> Client:
        client = Client()
        client.force_login(User.objects.filter(username=group).first() or user_in(group))
        return client

    return make


def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until the condition holds and return what it gave; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def database_url() -> str:
    """The URL of the database that the running test uses, for other processes."""
    s = connection.settings_dict
    return f"postgresql://{quote(s['USER'])}:{quote(s['PASSWORD'])}@{s['HOST']}:{s['PORT']}/{s['NAME']}"


def drop_database(connection: psycopg.Connection[Any], name: str) -> None:
    """WITH (FORCE) would be refused where autovacuum is at work, which a plain DROP ends."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = %s AND usename = current_user",
        [name],
    )
    connection.execute(f"DROP DATABASE {name}")


class WorkerProcess:
    """A real `manage.py runworker`, its lines kept in a file."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runworker", *arguments],
                cwd=ROOT,
                env=os.environ
                | {
                    "DATABASE_URL": database_url(),
                    "DJANGO_SETTINGS_MODULE": "tests.settings",
                    "QUEUE_HEARTBEAT_SECONDS": "0.5",
                    "QUEUE_LOST_AFTER_SECONDS": "2",
                    "QUEUE_MAINTENANCE_SECONDS": "0.3",
                }
                | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def lines(self) -> str:
        return self.log.read_text()

    def started(self) -> WorkerProcess:
        eventually(
            lambda: "worker started polling" in self.lines or self.process.poll() is not None
        )
        assert "worker started polling" in self.lines, self.lines
        return self

    def send(self, signum: int) -> None:
        """Send a signal: to the worker process, too, where its supervisor could not pass it on."""
        if signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.send(signum)
        return self.process.wait(timeout=30)

    def wait(self, seconds: float = 60) -> int:
        return self.process.wait(timeout=seconds)


@pytest.fixture
def run_worker(transactional_db: None, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes; those still running are killed at the end."""
    made: list[WorkerProcess] = []

    def run(*arguments: str, **environment: str) -> WorkerProcess:
        made.append(WorkerProcess(tmp_path / f"worker-{len(made)}.log", *arguments, **environment))
        return made[-1]

    yield run
    for worker in made:
        worker.stop(signal.SIGKILL)


from tests.fake_providers import books  # noqa: E402, F401
from tests.foreign import foreign  # noqa: E402, F401
