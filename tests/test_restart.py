"""A PostgreSQL that dies and comes back, with a real worker in the middle of its work."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from opsconsole import embedded_postgres
from tests.conftest import ROOT, eventually

OUTCOMES = "SELECT count(*), count(*) FILTER (WHERE status = 'completed'), max(lost), max(attempts) FROM tasks"


@pytest.fixture
def server():
    """A server of the test's own: the others' must not be restarted."""
    with tempfile.TemporaryDirectory(prefix="opsconsole-restart-") as name:
        home = Path(name)
        home.chmod(0o755)
        # Not a throw-away one: that forgets its last commits in a crash, as it may.
        yield home, embedded_postgres.start(home).url
        embedded_postgres.stop(home)


def test_tasks_survive_crashes_of_the_database(server, tmp_path):
    home, url = server
    environ = os.environ | {
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "QUEUE_HEARTBEAT_SECONDS": "0.5",
        "QUEUE_LOST_AFTER_SECONDS": "3",
        "QUEUE_MAINTENANCE_SECONDS": "0.3",
    }
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "-v0"], cwd=ROOT, env=environ, check=True)
    runs = tmp_path / "runs"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tasks (type, payload, max_attempts)"
            " SELECT 'append', jsonb_build_object('file', %s::text), 20 FROM generate_series(1, 2000)",
            [str(runs)],
        )
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen([*manage, "runworker"], cwd=ROOT, env=environ, stderr=log)
        try:
            for done in (100, 700, 1300):
                eventually(lambda done=done: _lines(runs) > done)
                postmaster = int((home / "pg18" / "data" / "postmaster.pid").read_text().split()[0])
                os.kill(postmaster, signal.SIGKILL)
                # A killed process takes a moment to die; until then it would count as running.
                eventually(lambda: embedded_postgres.running_url(home) is None)
                assert embedded_postgres.start(home).url == url
            eventually(lambda: _outcomes(url)[:2] == (2000, 2000), 60)
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0
    _, _, lost, attempts = _outcomes(url)
    assert lost <= 3
    assert attempts <= 4
    assert len({line.split()[0] for line in runs.read_text().splitlines()}) == 2000


def _lines(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


def _outcomes(url):
    with psycopg.connect(url) as connection:
        return connection.execute(OUTCOMES).fetchone()
