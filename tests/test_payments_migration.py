"""Ledgers from before partial refunds and announced orders are brought along."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import ROOT, database_url, drop_database

BEFORE = """
INSERT INTO transactions (order_id, payment_id, amount, status, updated_at) VALUES
    ('order_1', 'pay_1', 50000, 'paid', '2026-01-01T00:00Z'),
    ('order_2', 'pay_2', 40000, 'refunded', '2026-01-02T00:00Z'),
    ('order_3', 'pay_3', 30000, 'authorized', '2026-01-03T00:00Z'),
    ('order_4', NULL, 20000, 'created', '2026-01-04T00:00Z');
INSERT INTO webhook_deliveries (provider, event_id, order_id, verdict, body)
VALUES ('razorpay', 'evt_1', 'order_1', 'accepted', 'x');
"""
AFTER = """SELECT order_id, status, refunded, to_char(paid_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
    expected_at FROM transactions ORDER BY order_id"""


@pytest.fixture
def database(db):
    """A new database on the tests' server; its name says whose it is."""
    name = f"migrated_{os.getpid()}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlsplit(database_url())._replace(path=f"/{name}").geturl()
        drop_database(connection, name)


def test_rows_from_before_are_brought_along(database):
    def migrate(*arguments):
        environ = os.environ | {
            "DATABASE_URL": database,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
        }
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0", *arguments]
        subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=120)

    migrate("queue")
    migrate("payments", "0001")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(BEFORE)
        migrate()
        assert connection.execute(AFTER).fetchall() == [
            ("order_1", "paid", 0, "2026-01-01", None),
            ("order_2", "refunded", 40000, "2026-01-02", None),
            ("order_3", "authorized", 0, None, None),
            ("order_4", "created", 0, None, None),
        ]
        kept = "SELECT source, verdict, payment_id, handled_at FROM webhook_deliveries"
        assert connection.execute(kept).fetchall() == [("webhook", "accepted", None, None)]
        known = connection.execute("SELECT * FROM expect_order('order_4', 20000)").fetchone()
        assert known is not None
        assert known[1:] == (False, "created", None)
