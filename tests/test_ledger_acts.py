"""What people do to the ledger: release, fulfil anew, decide; and what is deleted in the end."""

from datetime import timedelta
from uuid import uuid4

import pytest

from payments import chores, intake, ledger
from payments.ledger import ActRefused
from payments.models import Transaction, WebhookDelivery
from queues.models import Operation, Task
from tests.conftest import eventually
from tests.payment_events import body_of, deliver, post, verdict

pytestmark = pytest.mark.django_db


@pytest.fixture
def holding(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"


def test_a_person_releases_a_held_order(holding):
    deliver()
    row = Transaction.objects.get()
    task_id = ledger.fulfil_again(row.id, actor="asha", reason="asked the shop")
    row.refresh_from_db()
    assert (row.held_at, row.task_id) == (None, task_id)
    assert Task.objects.get().id == task_id
    written = Operation.objects.get()
    assert (written.actor, written.reason) == ("asha", "asked the shop")
    assert written.verb == "fulfil order order_1"
    with pytest.raises(ActRefused, match="on its way"):
        ledger.fulfil_again(row.id, actor="asha", reason="again")
    assert Operation.objects.count() == Task.objects.count() == 1


def test_a_fulfilment_that_failed_is_started_anew(sql):
    deliver()
    row = Transaction.objects.get()
    first = row.task_id
    sql("SELECT cancel_tasks(%s)", [first])
    assert Task.objects.get().status == "cancelled"
    second = ledger.fulfil_again(row.id, actor="asha", reason="mended")
    assert second != first
    row.refresh_from_db()
    assert row.task_id == second
    assert Task.objects.get(id=second).payload["transaction_id"] == str(row.id)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        ("UPDATE transactions SET fulfilled_at = now()", "it was fulfilled already"),
        ("UPDATE transactions SET status = 'refunded'", "it is refunded, not paid"),
        ("UPDATE transactions SET status = 'created'", "it is created, not paid"),
        ("DELETE FROM order_payments; DELETE FROM transactions", "there is no such transaction"),
    ],
)
def test_only_a_paid_order_that_lacks_its_fulfilment_is_fulfilled_anew(prepare, why, sql):
    deliver()
    row = Transaction.objects.get()
    sql("DELETE FROM tasks")
    sql(prepare)
    with pytest.raises(ActRefused, match=why):
        ledger.fulfil_again(row.id, actor="asha", reason="trying")
    assert not Task.objects.exists()
    assert not Operation.objects.exists()


@pytest.fixture
def mismatch():
    ledger.expect_order("order_1", 49900)
    assert verdict(deliver()) == "mismatch"
    return WebhookDelivery.objects.get()


def test_an_accepted_mismatch_replaces_what_was_recorded_and_is_fulfilled(mismatch):
    assert (
        ledger.handle_delivery(mismatch.id, accept=True, actor="asha", reason="fee") == "accepted"
    )
    row = Transaction.objects.get()
    assert (row.status, row.amount, row.payment_id) == ("paid", 50000, "pay_1")
    mismatch.refresh_from_db()
    assert (mismatch.handled_by, mismatch.handling) == ("asha", "accepted: fee")
    assert mismatch.handled_at is not None
    assert mismatch.task_id == row.task_id == Task.objects.get().id
    assert Operation.objects.get().verb == (
        "accept the payment.captured delivery of order_1, payment pay_1"
    )
    for accept in (True, False):
        with pytest.raises(ActRefused, match="asha dealt with it already"):
            ledger.handle_delivery(mismatch.id, accept=accept, actor="ben", reason="too")


def test_a_mismatch_that_is_set_aside_changes_nothing_else(mismatch):
    before = Transaction.objects.values().get()
    done = ledger.handle_delivery(mismatch.id, accept=False, actor="asha", reason="fraud")
    assert done == "set aside"
    assert Transaction.objects.values().get() == before
    assert not Task.objects.exists()
    mismatch.refresh_from_db()
    assert (mismatch.handled_by, mismatch.handling) == ("asha", "set aside: fraud")


def test_a_second_payment_cannot_be_accepted_only_set_aside():
    deliver()
    deliver("payment.captured", "evt_2", id="pay_2")
    flagged = WebhookDelivery.objects.get(verdict="mismatch")
    with pytest.raises(ActRefused, match="paid twice"):
        ledger.handle_delivery(flagged.id, accept=True, actor="asha", reason="both")
    flagged.refresh_from_db()
    assert flagged.handled_at is None
    ledger.handle_delivery(flagged.id, accept=False, actor="asha", reason="refunded by hand")


def test_accepting_old_news_keeps_the_payment_that_paid():
    ledger.expect_order("order_1", 50000)
    assert verdict(deliver("payment.authorized", "evt_0", id="pay_0", amount=49900)) == "mismatch"
    deliver()
    before = Transaction.objects.values().get()
    flagged = WebhookDelivery.objects.get(verdict="mismatch")
    ledger.handle_delivery(flagged.id, accept=True, actor="asha", reason="the price was changed")
    assert Transaction.objects.values().get() == before
    assert (before["status"], before["payment_id"], before["amount"]) == ("paid", "pay_1", 50000)
    assert Task.objects.count() == 1


def test_what_nobody_signed_is_nothing_to_decide():
    post(body_of(), signature="0" * 64)
    rejected = WebhookDelivery.objects.get()
    with pytest.raises(ActRefused, match="nothing proves who sent it"):
        ledger.handle_delivery(rejected.id, accept=False, actor="asha", reason="a scanner")


def test_a_signed_delivery_that_cannot_be_read_is_set_aside_but_not_accepted():
    post(body_of(amount=0.5))
    rejected = WebhookDelivery.objects.get(WebhookDelivery.OPEN)
    with pytest.raises(ActRefused, match="nothing that could be recorded"):
        ledger.handle_delivery(rejected.id, accept=True, actor="asha", reason="hope")
    ledger.handle_delivery(rejected.id, accept=False, actor="asha", reason="a test of theirs")
    assert not WebhookDelivery.objects.filter(WebhookDelivery.OPEN).exists()


def test_there_must_be_something_to_decide():
    deliver()
    accepted = WebhookDelivery.objects.get()
    with pytest.raises(ActRefused, match="it is accepted: nothing to decide"):
        ledger.handle_delivery(accepted.id, accept=False, actor="asha", reason="x")
    with pytest.raises(ActRefused, match="no such delivery"):
        ledger.handle_delivery(uuid4(), accept=False, actor="asha", reason="x")


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_whoever_decides_says_why(reason, mismatch):
    with pytest.raises(ActRefused, match="a reason is needed"):
        ledger.handle_delivery(mismatch.id, accept=True, actor="asha", reason=reason)
    with pytest.raises(ActRefused, match="a reason is needed"):
        ledger.fulfil_again(Transaction.objects.get().id, actor="asha", reason=reason)
    assert not Operation.objects.exists()


DAY = timedelta(days=1)


def keep(verdict, age, **fields):
    row = WebhookDelivery.objects.create(
        provider="razorpay",
        verdict=verdict,
        body=b"x",
        **{"signed": verdict != "rejected"} | fields,
    )
    WebhookDelivery.objects.filter(id=row.id).update(received_at=row.received_at - age)
    return row.id


def test_deliveries_are_deleted_when_they_were_kept_long_enough(settings, monkeypatch):
    settings.PAYMENTS_KEEP_REJECTED_DAYS = 30
    settings.PAYMENTS_KEEP_REPEATS_DAYS = 180
    settings.PAYMENTS_KEEP_DAYS = 365
    kept_days = {"rejected": 30, "duplicate": 180, "stale": 180, "accepted": 365}
    young = {keep(name, days * DAY - DAY / 2) for name, days in kept_days.items()}
    for name, days in kept_days.items():
        for _ in range(3):
            keep(name, days * DAY + DAY / 2)
    undecided = {keep("mismatch", 4000 * DAY), keep("rejected", 4000 * DAY, signed=True)}
    received = WebhookDelivery.objects.latest("received_at").received_at
    keep("mismatch", 366 * DAY, handled_at=received)
    keep("rejected", 366 * DAY, handled_at=received, signed=True)
    young.add(keep("rejected", 364 * DAY, handled_at=received, signed=True))
    monkeypatch.setattr(chores, "CHUNK", 5)
    chores.purge_deliveries()
    assert set(WebhookDelivery.objects.values_list("id", flat=True)) == young | undecided


def test_old_deliveries_are_deleted_by_the_workers(transactional_db, run_worker, sql):
    gone = keep("rejected", 8 * DAY)
    left = keep("rejected", 6 * DAY)
    run_worker()
    eventually(lambda: not WebhookDelivery.objects.filter(id=gone).exists())
    assert WebhookDelivery.objects.get().id == left


def test_bounds_are_those_that_the_docs_name():
    assert (intake.UNREADABLE_PER_HOUR, intake.UNSIGNED_PER_HOUR) == (200, 150)
    assert intake.UNSIGNED_BODY_BYTES == 2048
    assert intake.REPEATS_KEPT == 100
