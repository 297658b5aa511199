"""What stays open from one comparison to the next, and what closes it."""

import threading

import pytest

from payments import comparison, reconcile, review
from payments.decisions import apply_row, set_aside_row
from payments.ledger import ActRefused
from payments.models import Reconciliation, ReconciliationRow, Transaction
from payments.providers.base import ProviderError
from tests.payment_events import deliver
from tests.test_reconcile import ago, counts, long_ago, order, run
from tests.test_statements import HEADER, compare

pytestmark = pytest.mark.django_db


def only():
    return ReconciliationRow.objects.get()


def is_closed(row):
    """Whether the two sides came to agree, with nobody's doing."""
    row.refresh_from_db()
    assert row.handled_by == ""
    return row.handled_at is not None


@pytest.fixture
def lost(books):
    """A payment of ten hours ago that is unknown here."""
    books.add("razorpay", 1, "order_1", at=ago(hours=10))
    run()
    return only()


def test_what_is_found_again_is_one_row_of_the_newest_run(books, lost):
    books.payments["razorpay"][0] |= {"amount": 70_000}
    second = run()
    row = only()
    assert (row.id, row.reconciliation_id) == (lost.id, second.id)
    assert row.theirs["amount"] == 70_000
    assert row.found_at > lost.found_at
    assert Reconciliation.objects.order_by("id").first().missing_here == 1


def test_a_run_that_does_not_look_there_leaves_it_open(lost):
    run(hours=1)
    row = only()
    assert (row.handled_at, row.reconciliation_id) == (None, lost.reconciliation_id)


def test_it_closes_when_the_ledger_has_caught_up(lost):
    deliver(id="pay_1", order="order_1")
    run(hours=1)
    assert is_closed(lost)
    with pytest.raises(ActRefused, match="the two sides agree"):
        apply_row(lost.id, "ann", "late")


def test_it_closes_where_the_provider_does_not_answer_to_the_end(books, lost):
    deliver(id="pay_1", order="order_1")
    books.fails_from = 1
    with pytest.raises(ProviderError):
        run(hours=1)
    assert is_closed(lost)


def test_it_closes_when_both_sides_have_gone_on(books):
    """What the provider said then differs from the ledger as it is now, and what it says now does not."""
    row = order(1, payment=books.add("razorpay", 1, "order_1", refunded=200))
    run()
    found = only()
    books.payments["razorpay"][0] |= {"amount_refunded": 300}
    Transaction.objects.update(status="partially_refunded", refunded=300)
    row.payments.update(status="partially_refunded", refunded=300)
    assert counts(run()) == (1, 0, 0, 0)
    assert is_closed(found)


def test_what_differs_otherwise_by_now_says_so(lost):
    deliver(id="pay_1", order="order_1", amount=40_000)
    run(hours=1)
    row = only()
    assert (row.finding, row.difference) == ("different", "amount: ours 40000, theirs 50000")
    assert row.transaction_id == Transaction.objects.get().id
    assert row.ours["amount"] == 40_000
    assert (row.handled_at, row.reconciliation_id) == (None, lost.reconciliation_id)


def test_an_order_that_got_its_name_is_found_under_it(books):
    """One row under the payment's name, then under the order's, never two."""
    books.add("razorpay", 1, None, at=ago(hours=10), refunded=200)
    run()
    assert (only().finding, only().order_id) == ("missing_here", "")
    deliver(id="pay_1", order=None)
    long_ago()
    run()
    assert (only().finding, only().order_id) == ("different", "pay_1")
    deliver("order.paid", "evt_2", id="pay_1", order="order_1")
    long_ago()
    run()
    row = only()
    assert (row.order_id, row.difference) == (
        "order_1",
        "status: ours paid, theirs partially refunded; refunded: ours 0, theirs 200",
    )
    apply_row(row.id, "ann", "lost")
    assert Transaction.objects.get().refunded == 200


def test_what_is_missing_there_closes_when_its_payment_is_shown(books):
    order(1, payment="pay_1", at=ago(hours=10))
    run()
    row = only()
    run(hours=1)
    assert not is_closed(row)
    books.add("razorpay", 1, "order_1", at=ago(hours=10))
    assert counts(run()) == (1, 0, 0, 0)
    assert is_closed(row)


def test_a_statement_closes_what_a_statement_told_and_not_what_the_provider_says(books):
    order(1, payment=books.add("razorpay", 1, "order_1", refunded=200))
    order(2, payment="pay_2")
    run()
    provider = ReconciliationRow.objects.get(order_id="order_1")
    compare(HEADER + "pay_2,order_2,5,INR,paid\n")
    told = ReconciliationRow.objects.get(payment_id="pay_2", finding="different")
    compare(HEADER + "pay_1,order_1,500,INR,paid\npay_2,order_2,500,INR,paid\n")
    assert is_closed(told)
    assert not is_closed(provider)


def test_a_statement_shows_what_was_missing_there(books):
    order(1, payment="pay_1")
    run()
    compare(HEADER + "pay_1,order_1,500,INR,paid\n")
    assert is_closed(only())


def test_another_provider_is_left_alone(books, lost):
    deliver(id="pay_1", order="order_1")
    run("stripe")
    assert not is_closed(lost)


def test_what_a_person_decides_meanwhile_stays_decided(books, lost, monkeypatch):
    deliver(id="pay_1", order="order_1")
    judge = review._judge

    def first_a_person(*args):
        set_aside_row(lost.id, "ann", "known")
        lost.refresh_from_db()
        judge(*args)

    monkeypatch.setattr(review, "_judge", first_a_person)
    run(hours=1)
    row = only()
    assert (row.handled_by, row.handled_at) == ("ann", lost.handled_at)


def test_what_agreed_and_differs_again_is_a_new_row(books, lost):
    deliver(id="pay_1", order="order_1")
    run(hours=1)
    assert is_closed(lost)
    books.payments["razorpay"][0] |= {"amount_refunded": 50_000, "status": "refunded"}
    long_ago()
    run()
    row = ReconciliationRow.objects.get(handled_at__isnull=True)
    assert row.difference == "status: ours paid, theirs refunded; refunded: ours 0, theirs 50000"
    assert row.id != lost.id


def test_what_agreed_and_differs_again_in_the_same_way_is_open_again(books):
    order(1, payment=books.add("razorpay", 1, "order_1"))
    for status in ("failed", "captured", "failed"):
        books.payments["razorpay"][0]["status"] = status
        run()
    closed, again = ReconciliationRow.objects.order_by("id")
    assert closed.difference == again.difference == "status: ours paid, theirs failed"
    assert is_closed(closed)
    assert not is_closed(again)


def test_pages_of_open_rows_lose_nothing(books, monkeypatch):
    monkeypatch.setattr(review, "BATCH", 7)
    monkeypatch.setattr(comparison, "BATCH", 7)
    for n in range(40):
        books.add("razorpay", n, f"order_{n % 20}" if n % 2 else None, at=ago(hours=10))
    run()
    assert ReconciliationRow.objects.count() == 40
    for n in range(0, 40, 2):
        deliver(event_id=f"evt_{n}", id=f"pay_{n}", order=None)
    run(hours=1)
    waiting = ReconciliationRow.objects.filter(handled_at__isnull=True)
    assert sorted(waiting.values_list("payment_id", flat=True)) == sorted(
        f"pay_{n}" for n in range(1, 40, 2)
    )


@pytest.mark.django_db(transaction=True)
def test_comparisons_at_once_write_each_difference_once(books, at_once):
    for n in range(60):
        books.add("razorpay", n, f"order_{n}", at=ago(hours=10))
        order(100 + n, payment=f"pay_{100 + n}", at=ago(hours=10))
    arrived = threading.Barrier(4)

    def one():
        return counts(run(step=together(arrived)))

    assert at_once(*[one] * 4) == [(0, 60, 60, 0)] * 4
    assert ReconciliationRow.objects.count() == 120


def together(barrier):
    """A step that waits for the others the first time."""
    waits = iter([True])

    def step():
        if next(waits, False):
            barrier.wait(timeout=60)

    return step


def test_orders_that_were_too_many_to_ask_for_are_counted(books, monkeypatch):
    monkeypatch.setattr(reconcile, "ASKED_AT_MOST", 3)
    monkeypatch.setattr(reconcile, "BATCH", 2)
    for n in range(9):
        order(n, "created")
    for n in range(10, 14):
        order(n, payment=f"pay_{n}")
    assert run().not_asked == 6 + 1
    monkeypatch.setattr(reconcile, "ASKED_AT_MOST", 9)
    assert run().not_asked == 0


@pytest.mark.parametrize("provider", ["razorpay", "stripe"])
def test_a_payment_that_cannot_be_read_is_counted_and_hides_no_other(books, provider, caplog):
    odd = books.add(provider, 1, "order_1", "authorized", amount=-1)
    order(1, payment=odd, provider=provider)
    order(2, "created", provider=provider)
    books.add(provider, 2, "order_2", currency="rupees", at=ago(hours=30))
    books.add(provider, 3, "order_3")
    found = run(provider)
    assert (counts(found), found.unread, found.error) == ((0, 1, 0, 0), 2, "")
    assert odd in caplog.text
    assert run(provider).unread == 2


def test_a_payment_that_cannot_be_read_closes_nothing(books, lost):
    books.payments["razorpay"][0] |= {"amount": "many"}
    run()
    assert not is_closed(lost)
