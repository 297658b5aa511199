"""Deliveries about one order at the same moment: they take turns on its row."""

import threading

import pytest
from django.db import connections

from payments import intake, ledger
from payments.models import Transaction, WebhookDelivery
from queues.models import Task
from tests.conftest import eventually
from tests.payment_events import (
    body_of,
    charge,
    checkout,
    deliver,
    deliver_stripe,
    intent,
    verdict,
    verdicts,
)

pytestmark = pytest.mark.django_db(transaction=True)
WAITING = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"


def until_done(call):
    """Deliver as a provider does: again, until it is taken."""
    while (response := call()).status_code == 503:
        assert response["Retry-After"]
    return response


@pytest.fixture
def at_the_row(sql):
    """Start calls that all reach an order's row while this session holds it; their answers, after
    it was let go."""

    def run(hold, *calls):
        answers = {}

        def one(number, call):
            try:
                answers[number] = call()
            finally:
                connections.close_all()

        threads = [threading.Thread(target=one, args=each) for each in enumerate(calls)]
        sql("BEGIN")
        try:
            sql(hold)
            for number, thread in enumerate(threads, 1):
                thread.start()
                eventually(lambda number=number: sql(WAITING) == [(number,)], 4)
        finally:
            sql("ROLLBACK")
            for thread in filter(threading.Thread.is_alive, threads):
                thread.join()
        return [answers[number] for number in range(len(calls))]

    return run


HOLD = "SELECT FROM transactions FOR UPDATE"


def test_a_refund_and_its_payment_at_the_same_moment_end_in_the_refund(at_the_row):
    ledger.expect_order("order_1", 50000)
    answers = at_the_row(
        HOLD,
        lambda: deliver("refund.processed", "evt_1"),
        lambda: deliver("payment.captured", "evt_2"),
    )
    assert [verdict(answer) for answer in answers] == ["accepted", "stale"]
    row = Transaction.objects.get()
    assert (row.status, row.refunded) == ("refunded", 50000)
    assert not Task.objects.exists()


def test_two_payments_of_an_order_at_the_same_moment_are_one_and_a_mismatch(at_the_row):
    ledger.expect_order("order_1", 50000)
    answers = at_the_row(
        HOLD,
        lambda: deliver("payment.captured", "evt_1", id="pay_1"),
        lambda: deliver("payment.captured", "evt_2", id="pay_2"),
    )
    assert [verdict(answer) for answer in answers] == ["accepted", "mismatch"]
    assert Transaction.objects.get().payment_id == "pay_1"
    assert Task.objects.count() == 1


def test_a_held_order_is_released_once(at_the_row, settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    deliver()
    row = Transaction.objects.get()
    ledger_calls = [
        lambda: ledger.expect_order("order_1", 50000),
        lambda: ledger.fulfil_again(row.id, actor="asha", reason="known"),
    ]

    def refused(call):
        try:
            return call()
        except ledger.ActRefused as refusal:
            return refusal

    announced, released = at_the_row(
        HOLD, *[lambda call=call: refused(call) for call in ledger_calls]
    )
    assert announced.difference is None
    assert "on its way" in str(released)
    assert Task.objects.count() == 1


CHECKOUT = {
    "payment": ("payment_intent.succeeded", intent(metadata={}), "evt_1"),
    "checkout": ("checkout.session.completed", checkout(), "evt_2"),
}


@pytest.mark.parametrize("first", CHECKOUT)
def test_a_payment_and_the_checkout_that_names_its_order_may_come_at_the_same_moment(first, sql):
    """The one that comes second waits for the other's row, whose name it did not know."""
    second = next(name for name in CHECKOUT if name != first)
    answers = []
    kind, thing, event_id = CHECKOUT[first]

    def later():
        try:
            answers.append(deliver_stripe(*CHECKOUT[second]))
        finally:
            connections.close_all()

    thread = threading.Thread(target=later)
    sql("BEGIN")
    try:
        assert verdict(deliver_stripe(kind, thing, event_id)) == "accepted"
        thread.start()
        eventually(lambda: sql(WAITING) == [(1,)], 4)
    finally:
        sql("COMMIT")
        thread.join()
    assert [verdict(answer) for answer in answers] == ["accepted"]
    row = Transaction.objects.get()
    assert (row.order_id, row.payment_id, row.status) == ("order_1", "pi_1", "paid")
    assert Task.objects.count() == 1
    deliver_stripe("charge.refunded", charge(), "evt_3")
    assert Transaction.objects.get().status == "refunded"


def test_a_row_held_by_someone_else_ends_in_503_not_in_waiting(at_once, sql):
    deliver("payment.authorized", "evt_1")
    sql("BEGIN")
    sql(HOLD)
    [response] = at_once(lambda: deliver("payment.captured", "evt_2"))
    sql("ROLLBACK")
    assert response.status_code == 503
    assert Transaction.objects.get().status == "authorized"
    assert verdict(deliver("payment.captured", "evt_2")) == "accepted"


def test_a_hundred_identical_deliveries_at_once_are_one_payment(at_once, monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_KEPT", 50)
    answers = at_once(*[lambda: until_done(deliver)] * 100)
    told = sorted(verdict(answer) for answer in answers)
    assert told == ["accepted"] + ["duplicate"] * 99
    assert sorted(verdicts()) == ["accepted"] + ["duplicate"] * 50
    assert Transaction.objects.count() == Task.objects.count() == 1


def test_the_events_of_an_order_at_once_end_in_one_fulfilment(at_once):
    kinds = ["payment.failed", "payment.authorized", "payment.captured", "order.paid"]
    calls = [
        lambda kind=kind, order=order: until_done(
            lambda: deliver(kind, f"{order}-{kind}", order=order, id=f"pay_{order}")
        )
        for order in ("order_1", "order_2", "order_3")
        for kind in kinds
    ]
    assert {answer.status_code for answer in at_once(*calls * 3)} == {200}
    assert list(Transaction.objects.values_list("status", flat=True)) == ["paid"] * 3
    assert Task.objects.count() == 3
    assert WebhookDelivery.objects.exclude(verdict="duplicate").count() == 12


def test_one_signed_body_under_many_event_ids_at_once_is_one_payment(at_once):
    calls = [
        lambda n=n: until_done(lambda: deliver("payment.captured", f"evt_{n}")) for n in range(30)
    ]
    told = sorted(verdict(answer) for answer in at_once(*calls))
    assert told == ["accepted"] + ["duplicate"] * 29
    assert bytes(WebhookDelivery.objects.get(verdict="accepted").body) == body_of()
    assert Task.objects.count() == 1
