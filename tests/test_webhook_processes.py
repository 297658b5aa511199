"""Storms of deliveries, sent by other processes to a real web server, and a real worker behind it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from opsconsole import embedded_postgres
from tests.conftest import ROOT, WorkerProcess, database_url, eventually
from tests.payment_events import body_of
from tests.webhook_storm import (
    Senders,
    WebServer,
    announce,
    check_deliveries,
    check_effects,
    check_ledger,
    connect,
    storm_of,
)


@pytest.fixture
def web(transactional_db, tmp_path):
    server = WebServer(database_url(), tmp_path / "web.log")
    yield server
    server.kill()


def test_a_thousand_identical_deliveries_are_one_payment(web, run_worker):
    delivery = {"provider": "razorpay", "event_id": "evt_1", "body": body_of().decode()}
    answers = Senders(web.port, [delivery] * 1000, count=4, threads=16).answers()
    assert len(answers) == 1000
    assert {answer["statuses"][-1] for answer in answers} == {200}
    verdicts = [answer["verdict"] for answer in answers]
    assert (verdicts.count("accepted"), verdicts.count("duplicate")) == (1, 999)
    run_worker("--drain").wait()
    with connect(database_url()) as connection:
        kept = "SELECT verdict, count(*) FROM webhook_deliveries GROUP BY 1 ORDER BY 1"
        assert connection.execute(kept).fetchall() == [("accepted", 1), ("duplicate", 100)]
        check = "SELECT order_id, status, fulfilled_at IS NOT NULL FROM transactions"
        assert connection.execute(check).fetchall() == [("order_1", "paid", True)]
        tasks = "SELECT type, status FROM tasks ORDER BY type"
        assert connection.execute(tasks).fetchall() == [
            ("payments.fulfil", "completed"),
            ("payments.send_receipt", "completed"),
        ]
        assert connection.execute("SELECT order_id FROM fulfilments").fetchall() == [("order_1",)]


def test_a_thousand_deliveries_of_a_hundred_orders_in_any_order_are_a_hundred_payments(
    web, run_worker
):
    announce(web.port, 100)
    worker = run_worker().started()
    answers = Senders(web.port, storm_of(100, 1000), count=4, threads=4).answers()
    assert len(answers) == 1000
    with connect(database_url()) as connection:
        check_deliveries(connection, answers)
        check_ledger(connection, 100)
        wait_for_the_worker(connection)
        check_effects(connection, 100)
    assert worker.stop() == 0


LIVE = "SELECT count(*) FROM tasks WHERE status NOT IN ('completed', 'failed', 'cancelled')"
# What a crash made fail would be tried again half a minute later; an operator does not wait.
REQUEUE = """SELECT requeue_tasks(found.ids)
    FROM (SELECT array_agg(id) AS ids FROM tasks WHERE status = 'scheduled') found WHERE found.ids IS NOT NULL"""


def wait_for_the_worker(connection):
    def done():
        connection.execute(REQUEUE)
        return connection.execute(LIVE).fetchone() == (0,)

    eventually(done)


@pytest.fixture
def postgres():
    """A server of the test's own, which keeps its commits in a crash."""
    with tempfile.TemporaryDirectory(prefix="opsconsole-crash-") as name:
        home = Path(name)
        home.chmod(0o755)
        yield home, embedded_postgres.start(home).url
        embedded_postgres.stop(home)


def crash(home):
    """kill -9 of PostgreSQL, which is then started again."""
    postmaster = int((home / "pg18" / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    eventually(lambda: embedded_postgres.running_url(home) is None)
    embedded_postgres.start(home)


def test_deliveries_survive_kill_9_of_the_web_server_and_of_postgresql(postgres, tmp_path):
    home, url = postgres
    environ = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environ, check=True
    )
    web = WebServer(url, tmp_path / "web.log")
    worker = WorkerProcess(tmp_path / "worker.log", DATABASE_URL=url)

    def recorded():
        with connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM webhook_deliveries").fetchone()
            return row[0] if row else 0

    try:
        announce(web.port, 60)
        senders = Senders(web.port, storm_of(60, 600), count=2, threads=6)
        eventually(lambda: recorded() > 100)
        web.kill()
        web.start()
        eventually(lambda: recorded() > 250)
        crash(home)
        eventually(lambda: recorded() > 400)
        web.kill()
        crash(home)
        web.start()
        answers = senders.answers()
        # The storm was hit: some deliveries were not answered, or told to come again.
        assert any(len(answer["statuses"]) > 1 for answer in answers)
        with connect(url) as connection:
            check_deliveries(connection, answers)
            check_ledger(connection, 60)
            wait_for_the_worker(connection)
            check_effects(connection, 60)
        assert worker.stop() == 0
    finally:
        web.kill()
        worker.stop(signal.SIGKILL)
