"""What a person decides about a difference: the provider's word is recorded, or it is set aside."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from payments.decisions import KeptAsMismatch, apply_row, set_aside_row, what_became
from payments.ledger import ActRefused, handle_delivery
from payments.models import (
    Fulfilment,
    OrderPayment,
    ReconciliationRow,
    Transaction,
    WebhookDelivery,
)
from queues.models import Operation, Task
from tests.payment_events import deliver, verdict
from tests.test_reconcile import ago, long_ago, order, run

pytestmark = pytest.mark.django_db


def found(provider="razorpay"):
    """The one difference that a comparison finds."""
    return run(provider).rows.get()


@pytest.fixture
def missed(books):
    """An order that we hold as unpaid and the provider as paid."""
    order(1, "created")
    books.add("razorpay", 1, "order_1")
    return found()


def refused(act, *args):
    with pytest.raises(ActRefused) as caught:
        act(*args)
    return str(caught.value)


def test_a_missed_webhook_is_recorded(missed):
    receipt = apply_row(missed.id, "ann", "the webhook was lost")
    row = Transaction.objects.get()
    delivery = WebhookDelivery.objects.get()
    task = Task.objects.get()
    missed.refresh_from_db()
    assert (receipt.verdict, row.status, row.payment_id) == ("accepted", "paid", "pay_1")
    assert (
        what_became(receipt) == "Recorded: accepted. The fulfilment of order order_1 is enqueued."
    )
    assert (delivery.source, delivery.event_id) == (
        "reconciliation",
        "reconciliation:pay_1:paid:0",
    )
    assert b'"id":"pay_1"' in bytes(delivery.body)
    assert (task.type, task.correlation_id) == ("payments.fulfil", str(delivery.id))
    assert (missed.delivery_id, missed.handled_by) == (delivery.id, "ann")
    assert missed.handled_at is not None
    operation = Operation.objects.get()
    assert operation.verb == "record what the provider says of order order_1, payment pay_1"
    assert (operation.actor, operation.reason) == ("ann", "the webhook was lost")


@pytest.mark.django_db(transaction=True)
def test_it_is_fulfilled_once_also_when_the_webhook_comes_after_all(missed, run_worker):
    apply_row(missed.id, "ann", "the webhook was lost")
    assert verdict(deliver(id="pay_1", order="order_1")) == "accepted"
    assert run_worker("--drain").wait() == 0
    assert verdict(deliver(event="order.paid", event_id="evt_2", id="pay_1")) == "accepted"
    assert run_worker("--drain").wait() == 0
    row = Transaction.objects.get()
    assert (row.status, row.fulfilled_at is not None) == ("paid", True)
    assert Fulfilment.objects.count() == 1
    assert list(Task.objects.order_by("id").values_list("type", "status")) == [
        ("payments.fulfil", "completed"),
        ("payments.send_receipt", "completed"),
    ]


@pytest.mark.django_db(transaction=True)
def test_two_people_at_once_record_it_once(missed, at_once):
    def act():
        try:
            return apply_row(missed.id, "ann", "lost").verdict
        except ActRefused as error:
            return str(error)

    outcomes = at_once(*[act] * 4)
    assert sorted(outcomes).count("accepted") == 1
    assert outcomes.count("Nothing was done: ann dealt with it already.") == 3
    assert Task.objects.count() == Operation.objects.count() == 1


@pytest.mark.parametrize("provider", ["razorpay", "stripe"])
def test_a_payment_that_is_unknown_here_is_recorded(books, provider):
    id = books.add(provider, 1, "order_1", refunded=200)
    apply_row(found(provider).id, "ann", "lost")
    row = Transaction.objects.get()
    assert (row.provider, row.order_id, row.payment_id) == (provider, "order_1", id)
    assert (row.status, row.refunded, row.amount) == ("partially_refunded", 200, 50000)
    long_ago()
    assert run(provider).agreed == 1


def test_an_unannounced_payment_is_held_where_the_settings_say_so(books, settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    books.add("razorpay", 1, "order_1")
    receipt = apply_row(found().id, "ann", "lost")
    assert "order_1 is held: nobody announced it" in what_became(receipt)
    assert Transaction.objects.get().held_at is not None
    assert not Task.objects.exists()


def test_a_refund_is_recorded_and_the_next_one_is_news(books):
    order(1, payment=books.add("razorpay", 1, "order_1", refunded=200))
    apply_row(found().id, "ann", "lost")
    books.payments["razorpay"][0]["amount_refunded"] = 500
    long_ago()
    row = found()
    assert row.difference == "refunded: ours 200, theirs 500"
    apply_row(row.id, "ann", "lost again")
    assert Transaction.objects.get().refunded == 500
    assert WebhookDelivery.objects.count() == 2


def test_a_name_that_came_later_is_recorded(books):
    deliver(id="pay_1", order=None)
    long_ago()
    books.add("razorpay", 1, "order_1")
    row = found()
    assert row.difference == "order: ours pay_1, theirs order_1"
    apply_row(row.id, "ann", "name it")
    assert Transaction.objects.get().order_id == "order_1"


def test_a_webhook_that_came_meanwhile_has_done_it(missed):
    deliver(id="pay_1", order="order_1")
    assert apply_row(missed.id, "ann", "lost").verdict == "accepted"
    assert Task.objects.count() == 1


def test_a_contradiction_is_kept_as_a_mismatch_to_decide(books):
    order(1, "created", amount=40000)
    books.add("razorpay", 1, "order_1")
    row = found()
    with pytest.raises(KeptAsMismatch) as caught:
        apply_row(row.id, "ann", "lost")
    said = str(caught.value)
    delivery = WebhookDelivery.objects.get()
    row.refresh_from_db()
    assert "amount: recorded 40000, delivered 50000" in said
    assert str(delivery.id) in said
    assert caught.value.delivery_id == delivery.id
    assert (delivery.verdict, row.delivery_id, row.handled_at) == ("mismatch", delivery.id, None)
    assert Transaction.objects.get().status == "created"
    operation = Operation.objects.get()
    assert (operation.actor, operation.reason) == ("ann", "lost")
    assert operation.verb == (
        "record what the provider says of order order_1, payment pay_1: kept as a mismatch"
    )
    assert "came before" in refused(apply_row, row.id, "ann", "again")
    handle_delivery(delivery.id, accept=True, actor="bob", reason="the price had changed")
    after = Transaction.objects.get()
    assert (after.status, after.amount) == ("paid", 50000)


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [("refunded", "paid", "came too late"), ("paid", "authorized", "came too late")],
)
def test_a_ledger_that_is_further_on_stays(books, ours, theirs, why):
    order(1, ours, books.add("razorpay", 1, "order_1", theirs))
    row = found()
    assert why in refused(apply_row, row.id, "ann", "lost")
    row.refresh_from_db()
    assert (row.handled_at, row.delivery_id) == (None, None)
    assert not WebhookDelivery.objects.exists()
    assert not Operation.objects.exists()


def test_what_the_provider_does_not_have_cannot_be_recorded(books):
    order(1, payment="pay_1")
    assert "says nothing" in refused(apply_row, found().id, "ann", "lost")
    assert Transaction.objects.get().status == "paid"


@pytest.mark.parametrize("act", [apply_row, set_aside_row])
def test_an_act_needs_a_row_and_a_reason(missed, act):
    assert "reason" in refused(act, missed.id, "ann", " ")
    assert "no such row" in refused(act, uuid4(), "ann", "lost")
    set_aside_row(missed.id, "ann", "known")
    assert "ann dealt with it already" in refused(act, missed.id, "bob", "lost")
    assert Operation.objects.count() == 1


def test_what_is_set_aside_stays_so_while_it_is_the_same(missed, books):
    set_aside_row(missed.id, "ann", "a test order")
    assert not WebhookDelivery.objects.exists()
    verb = Operation.objects.get().verb
    assert verb == "set the difference of order order_1, payment pay_1 aside"
    missed.refresh_from_db()
    again = run()
    assert again.different == 1
    row = again.rows.get()
    assert (row.id, row.handled_by, row.handled_at) == (missed.id, "ann", missed.handled_at)
    books.payments["razorpay"][0]["amount"] = 1
    assert found().handled_at is None
    assert ReconciliationRow.objects.count() == 2
    books.payments["razorpay"][0]["amount"] = 50000
    assert found().handled_by == "ann"
    assert ReconciliationRow.objects.count() == 1


def test_what_was_recorded_and_differs_again_is_not_set_aside(missed):
    apply_row(missed.id, "ann", "lost")
    OrderPayment.objects.all().delete()
    Transaction.objects.update(
        status="created", payment_id=None, paid_at=None, updated_at=ago(hours=1)
    )
    assert found().handled_at is None


def test_a_row_keeps_what_is_recorded(missed, books):
    """What the provider told when it was compared is what is recorded, not what it tells now."""
    books.payments["razorpay"].clear()
    assert ReconciliationRow.objects.get().theirs["created_at"] < timezone.now().isoformat()
    apply_row(missed.id, "ann", "lost")
    row = Transaction.objects.get()
    assert (row.status, row.paid_at > ago(minutes=1)) == ("paid", True)
    assert timezone.now() - row.paid_at < timedelta(minutes=1)
