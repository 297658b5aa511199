"""Reconciliation by itself: the command as its own process, the task, and the chore that keeps it."""

import os
import re
import subprocess
import sys
from datetime import timedelta

import pytest
from django.utils import timezone

from payments import chores, reconcile_task
from payments.decisions import set_aside_row
from payments.models import Reconciliation, ReconciliationRow, Transaction
from payments.providers.base import ProviderError
from queues import maintenance, registry
from queues.models import Task
from queues.retry import Fail
from tests.conftest import ROOT, database_url, eventually
from tests.test_fulfilment import Context
from tests.test_reconcile import ago, order, run

pytestmark = pytest.mark.django_db
in_processes = pytest.mark.django_db(transaction=True)


def command(books, *arguments, given=None, **environment):
    """Run `manage.py reconcile` as a person would."""
    return subprocess.run(
        [sys.executable, "manage.py", "reconcile", *arguments],
        cwd=ROOT,
        env=os.environ
        | {
            "DATABASE_URL": database_url(),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "RAZORPAY_API_BASE": books.url,
            "STRIPE_API_BASE": books.url,
        }
        | environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )


@in_processes
def test_the_command_compares_all_providers_with_a_key(books):
    order(1, payment=books.add("razorpay", 1, "order_1"))
    order(2, payment=books.add("stripe", 2, "order_2"), provider="stripe")
    done = command(books)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^(\w+), .* UTC$", done.stdout, re.M) == ["razorpay", "stripe"]
    assert re.findall(r"(\w+) +(\d+)$", done.stdout, re.M)[0] == ("agreed", "1")
    runs = Reconciliation.objects.order_by("id")
    assert [(run.provider, run.agreed) for run in runs] == [("razorpay", 1), ("stripe", 1)]
    assert all(run.until - run.since == timedelta(days=3) for run in runs)


@in_processes
def test_the_command_tells_differences_and_where_to_see_them(books):
    order(1, "created")
    books.add("razorpay", 1, "order_1")
    books.add("razorpay", 2, "order_2")
    done = command(books, "--provider", "razorpay", "--since", "1d")
    [found] = Reconciliation.objects.all()
    assert (done.returncode, done.stderr) == (2, "")
    assert "different: order_1 pay_1: status: ours created, theirs paid" in done.stdout
    assert "missing here: order_2 pay_2: paid there, unknown here" in done.stdout
    assert f"/payments/reconciliations/{found.id}/" in done.stdout
    for row in ReconciliationRow.objects.all():
        set_aside_row(row.id, "ann", "known")
    done = command(books, "--provider", "razorpay", "--since", "1d")
    assert done.returncode == 0
    assert done.stdout.count("(set aside by ann)") == 2


@in_processes
def test_the_command_says_what_it_could_not_read(books):
    order(1, payment=books.add("razorpay", 1, "order_1"))
    books.add("razorpay", 2, "order_2", amount=-1)
    done = command(books, "--provider", "razorpay")
    assert done.returncode == 2
    assert (
        "Not everything was looked at: 1 payment of its books could not be read; the log names it."
        in done.stdout
    )
    assert "payment_id=pay_2" in done.stderr


@in_processes
def test_the_command_tells_of_what_is_open_from_before(books):
    books.add("razorpay", 1, "order_1", at=ago(hours=30))
    assert command(books, "--provider", "razorpay").returncode == 2
    done = command(books, "--provider", "razorpay", "--since", "1h")
    assert done.returncode == 2
    assert "open of earlier comparisons: 1. See /payments/differences/?provider=razorpay" in (
        done.stdout
    )
    set_aside_row(ReconciliationRow.objects.get().id, "ann", "known")
    done = command(books, "--provider", "razorpay", "--since", "1h")
    assert (done.returncode, "earlier" in done.stdout) == (0, False)


@in_processes
def test_the_command_says_what_failed_and_asks_the_others(books):
    books.add("stripe", 1, "order_1")
    done = command(books, RAZORPAY_KEY_SECRET="another")
    assert done.returncode == 1
    assert "Authentication failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "missing here: order_1 pi_1" in done.stdout
    assert Reconciliation.objects.get(provider="razorpay").error in done.stderr


@in_processes
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--provider", "paypal"], "There is no payment provider 'paypal'"),
        (["--since", "yesterday"], "--since is 'yesterday'"),
        (["--until", "2026-13-01"], "--until is '2026-13-01'"),
        (["--since", "1d", "--until", "2d"], "--since lies after the end"),
        (["--minor-units"], "--minor-units is for --statement"),
        (["--statement", "x.csv"], "--provider NAME, once"),
        (["--statement", "nowhere.csv", "--provider", "stripe"], "nowhere.csv: No such file"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_the_command_refuses_what_it_cannot_mean(books, arguments, said):
    done = command(books, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not Reconciliation.objects.exists()


@in_processes
def test_the_command_without_any_key(books):
    done = command(books, RAZORPAY_KEY_ID="", STRIPE_API_KEY="")
    assert done.returncode == 1
    assert "No provider has an API key here" in done.stderr


@in_processes
def test_the_command_reads_a_statement(books, tmp_path):
    file = tmp_path / "november.csv"
    file.write_text("payment_id,order_id,amount,currency,status\npay_1,order_1,50000,INR,paid\n")
    order(1, payment="pay_1")
    arguments = ("--provider", "razorpay", "--statement", str(file))
    done = command(books, *arguments, "--minor-units")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"razorpay, statement {file}" in done.stdout
    done = command(books, *arguments)
    assert done.returncode == 2
    assert "amount: ours 50000, theirs 5000000" in done.stdout
    piped = command(books, *arguments[:3], "-", "--minor-units", given=file.read_text())
    assert piped.returncode == 0
    file.write_text("payment_id,amount,currency,status\npay_1,1.234,INR,paid\n")
    done = command(books, *arguments)
    assert done.returncode == 1
    assert "line 2: 1.234 has more than the 2 decimals of INR" in done.stderr
    assert books.asked == []


@pytest.mark.parametrize(
    "payload",
    [None, {}, {"provider": "paypal"}, {"provider": "razorpay", "days": 0}]
    + [{"provider": "razorpay", "days": days} for days in ("3", True, 1e3, 3661)],
)
def test_a_payload_that_cannot_be_meant_fails_for_good(books, payload):
    with pytest.raises(Fail):
        reconcile_task.run(Context(payload))
    assert not Reconciliation.objects.exists()


def test_a_provider_without_a_key_fails_for_good(books, settings):
    settings.STRIPE_API_KEY = ""
    with pytest.raises(Fail, match="STRIPE_API_KEY"):
        reconcile_task.run(Context({"provider": "stripe"}))


def test_a_provider_that_fails_is_asked_again_later(books):
    books.fails_from = 1
    with pytest.raises(ProviderError):
        reconcile_task.run(Context({"provider": "razorpay"}))
    handler = registry.find("payments.reconcile")
    assert (handler.queue, handler.max_attempts) == ("payments", 6)


@in_processes
def test_a_worker_keeps_the_comparison_going(books, run_worker):
    """From the chore over the task to the result, and the next one an interval later."""
    order(1, payment=books.add("razorpay", 1, "order_1"))
    books.add("razorpay", 2, "order_2")
    environment = {
        "PAYMENTS_RECONCILE_HOURS": "2",
        "RAZORPAY_API_BASE": books.url,
        "STRIPE_API_BASE": books.url,
    }
    reconciles = Task.objects.filter(type="payments.reconcile")
    run_worker(**environment, QUEUE_LOST_AFTER_SECONDS="1").started()
    done = eventually(lambda: reconciles.filter(status="completed", dedupe_key="razorpay").first())
    found = Reconciliation.objects.get(provider="razorpay")
    assert done.payload == {"provider": "razorpay", "days": 3}
    assert done.result == {
        "reconciliation_id": str(found.id),
        "agreed": 1,
        "missing_here": 1,
        "missing_there": 0,
        "different": 0,
        "unread": 0,
        "not_asked": 0,
    }
    assert found.actor == f"task {done.id}"


def test_the_chore_keeps_one_task_a_provider(settings):
    settings.PAYMENTS_RECONCILE_HOURS = 2.0
    chores.schedule_reconciliations()
    chores.schedule_reconciliations()
    tasks = Task.objects.order_by("dedupe_key")
    assert [(task.dedupe_key, task.queue_id, task.status) for task in tasks] == [
        ("razorpay", "payments", "pending"),
        ("stripe", "payments", "pending"),
    ]
    assert tasks[0].payload == {"provider": "razorpay", "days": 3}


def test_the_next_one_is_due_an_interval_after_the_last_began(settings, books):
    settings.PAYMENTS_RECONCILE_HOURS = 2.0
    settings.STRIPE_API_KEY = ""
    first, last = run(), run()
    Reconciliation.objects.filter(id=first.id).update(started_at=ago(hours=5))
    Reconciliation.objects.create(provider="razorpay", source="statement", name="x.csv")
    chores.schedule_reconciliations()
    task = Task.objects.get()
    assert (task.status, task.run_at) == ("scheduled", last.started_at + timedelta(hours=2))
    task.delete()
    Reconciliation.objects.update(started_at=ago(hours=5))
    chores.schedule_reconciliations()
    assert Task.objects.get().run_at <= timezone.now()


def test_zero_hours_is_never(settings):
    settings.PAYMENTS_RECONCILE_HOURS = 0
    chores.schedule_reconciliations()
    assert not Task.objects.exists()


def test_old_comparisons_with_an_open_difference_are_kept(settings, books):
    settings.PAYMENTS_KEEP_REPEATS_DAYS = 30
    runs = []
    for n in range(3):
        books.add("razorpay", n, f"order_{n}")
        runs.append(run())
        books.payments["razorpay"].clear()
    set_aside_row(ReconciliationRow.objects.get(order_id="order_0").id, "ann", "known")
    Reconciliation.objects.update(started_at=ago(days=31))
    chores.purge_reconciliations()
    kept = Reconciliation.objects.order_by("id").values_list("id", flat=True)
    assert list(kept) == [runs[1].id, runs[2].id]
    left = ReconciliationRow.objects.order_by("id").values_list("order_id", flat=True)
    assert list(left) == ["order_1", "order_2"]


def test_old_comparisons_are_deleted_with_their_rows(settings, books, monkeypatch):
    monkeypatch.setattr(chores, "RUNS_AT_ONCE", 2)
    settings.PAYMENTS_KEEP_REPEATS_DAYS = 30
    books.add("razorpay", 1, "order_1")
    runs = [run() for _ in range(4)]
    old = [one.id for one in runs[:3]]
    Reconciliation.objects.filter(id__in=old).update(started_at=ago(days=31))
    chores.purge_reconciliations()
    assert Reconciliation.objects.get().id == runs[3].id
    assert ReconciliationRow.objects.get().reconciliation_id == runs[3].id
    assert not Transaction.objects.exists()


def test_a_chore_that_fails_does_not_end_the_worker(monkeypatch):
    """Once whatever was no database error ended the maintenance, and with it the worker."""
    done = []

    def broken():
        raise ValueError("broken")

    made = [maintenance._Chore(60, broken), maintenance._Chore(60, lambda: done.append(1))]
    monkeypatch.setattr(maintenance, "_chores", made)
    maintenance.do_chores()
    assert done == [1]
    assert made[0].due > 0
