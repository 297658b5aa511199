"""The ledger compared with its providers' books: what agrees, what does not, and what is left alone."""

from datetime import timedelta

import pytest
from django.utils import timezone

from payments import comparison, reconcile
from payments.models import (
    OrderPayment,
    Reconciliation,
    ReconciliationRow,
    Transaction,
    WebhookDelivery,
)
from payments.providers.base import NotConfigured, ProviderError, UnknownProvider
from queues.models import Task
from queues.retry import LostLease
from tests.payment_events import deliver

pytestmark = pytest.mark.django_db
BOTH = pytest.mark.parametrize("provider", ["razorpay", "stripe"])
SETTLED = Transaction.SETTLED


def ago(**span):
    return timezone.now() - timedelta(**span)


def order(n, status="paid", payment=None, *, at=None, **fields):
    """A row of the ledger, with its payment, by default of two hours ago."""
    at = at or ago(hours=2)
    implied = {
        "order_id": f"order_{n}",
        "payment_id": payment,
        "status": status,
        "amount": 50000,
        "email": "buyer@example.com",
        "created_at": at,
        "updated_at": at,
        "expected_at": at if status == "created" else None,
        "paid_at": at if status in SETTLED else None,
        "refunded": 50000 if status == "refunded" else 0,
    }
    row = Transaction.objects.create(**implied | fields)
    if row.payment_id:
        tried(row, row.payment_id, status, refunded=row.refunded)
    return row


def tried(row, payment, status, **fields):
    """A payment of an order, as the ledger knows it."""
    at = {"created_at": row.created_at, "updated_at": row.updated_at}
    return OrderPayment.objects.create(
        provider=row.provider, payment_id=payment, transaction=row, status=status, **at | fields
    )


def long_ago():
    """As if all that the ledger knows had come two hours ago."""
    for model in (Transaction, OrderPayment):
        model.objects.update(updated_at=ago(hours=2))


def run(provider="razorpay", hours=24, **options):
    return reconcile.reconcile(provider, ago(hours=hours), timezone.now(), **options)


def counts(found):
    return (found.agreed, found.missing_here, found.missing_there, found.different)


def rows(found):
    return [
        (row.finding, row.order_id, row.payment_id, row.difference)
        for row in found.rows.order_by("order_id", "payment_id")
    ]


@BOTH
def test_all_that_agrees_is_counted(books, provider):
    for n, status in enumerate(("authorized", "failed", "paid", "refunded"), start=1):
        order(n, status, books.add(provider, n, f"order_{n}", status), provider=provider)
    found = run(provider, actor="ann")
    assert counts(found) == (4, 0, 0, 0)
    assert (found.provider, found.source, found.actor) == (provider, "provider", "ann")
    assert found.finished_at > found.started_at
    assert (found.error, rows(found)) == ("", [])


@BOTH
def test_the_four_findings(books, provider):
    agreed = books.add(provider, 1, "order_1")
    order(1, payment=agreed, provider=provider)
    here = books.add(provider, 2, "order_2")
    there = order(3, payment="pay_gone", provider=provider)
    differs = books.add(provider, 4, "order_4", amount=50001, currency="USD", email="x@y.example")
    ours = order(4, payment=differs, provider=provider)
    found = run(provider)
    assert counts(found) == (1, 1, 1, 1)
    assert rows(found) == [
        ("missing_here", "order_2", here, "paid there, unknown here"),
        ("missing_there", "order_3", "pay_gone", "paid here, not there"),
        (
            "different",
            "order_4",
            differs,
            "amount: ours 50000, theirs 50001; currency: ours INR, theirs USD;"
            " email: ours buyer@example.com, theirs x@y.example",
        ),
    ]
    missing_here, missing_there, different = found.rows.order_by("order_id")
    assert (missing_here.ours, missing_here.transaction_id) == (None, None)
    assert missing_here.theirs["raw"]["id"] == here
    assert (missing_there.theirs, missing_there.transaction_id) == (None, there.id)
    assert missing_there.ours["payment_id"] == "pay_gone"
    assert (different.ours["amount"], different.theirs["amount"]) == (50000, 50001)
    assert different.transaction_id == ours.id


@BOTH
@pytest.mark.parametrize("status", ["created", "authorized", "failed"])
def test_a_missed_webhook_is_found(books, provider, status):
    attempt = books.add(provider, "attempt", "order_1", status)
    order(1, status, None if status == "created" else attempt, provider=provider)
    paid = books.add(provider, 2, "order_1")
    found = run(provider)
    assert found.different == 1
    assert rows(found) == [("different", "order_1", paid, f"status: ours {status}, theirs paid")]


@BOTH
def test_an_unpaid_order_is_asked_for_when_the_listing_does_not_show_it(books, provider):
    paid = books.add(provider, 1, "order_1", at=ago(hours=30))
    order(1, "created", provider=provider)
    order(2, "created", provider=provider)
    order(3, "created", provider=provider, at=ago(minutes=1))
    found = run(provider)
    assert rows(found) == [("different", "order_1", paid, "status: ours created, theirs paid")]
    asked = [str(path) + str(query.get("query")) for path, query in books.asked]
    assert [sum(f"order_{n}" in one for one in asked) for n in (1, 2, 3)] == [1, 1, 0]


@BOTH
def test_an_authorization_from_before_the_span_is_asked_for(books, provider):
    id = books.add(provider, 1, "order_1", at=ago(hours=40))
    for n, status, payment, hours in ((1, "authorized", id, 40), (2, "created", None, 41)):
        made = reconcile.first_id(ago(hours=hours))
        order(n, status, payment, provider=provider, at=ago(hours=40), id=made)
    found = run(provider)
    assert rows(found) == [("different", "order_1", id, "status: ours authorized, theirs paid")]
    assert not any("order_2" in str(asked) for asked in books.asked)


@BOTH
def test_an_order_without_a_name_is_asked_for_by_its_payment(books, provider):
    id = books.add(provider, 1, None, "paid", at=ago(hours=30))
    order(1, "authorized", id, order_id=id, provider=provider)
    assert rows(run(provider)) == [
        ("different", id, id, "status: ours authorized, theirs paid"),
    ]


@BOTH
def test_an_order_paid_at_the_edge_is_not_missing_there(books, provider):
    """Its payment was made before the span began, so the listing does not show it."""
    id = books.add(provider, 1, "order_1", at=ago(hours=25))
    order(1, payment=id, provider=provider, at=ago(hours=23, minutes=59))
    order(2, payment="pay_old", provider=provider, at=ago(hours=24, minutes=1))
    assert counts(run(provider)) == (1, 0, 0, 0)


def test_an_order_of_nothing_is_not_missed(books):
    order(1, payment="cs_1", provider="stripe", amount=0)
    assert counts(run("stripe")) == (0, 0, 0, 0)


@BOTH
def test_what_is_fresh_is_not_judged(books, provider):
    minute = ago(minutes=1)
    books.add(provider, 1, "order_1", at=minute)
    order(2, payment="pay_2", provider=provider, at=minute)
    order(3, "authorized", books.add(provider, 3, "order_3"), provider=provider, updated_at=minute)
    order(4, payment=books.add(provider, 4, "order_4", at=minute), provider=provider, at=minute)
    assert counts(run(provider)) == (1, 0, 0, 0)


@pytest.mark.parametrize("status", ["created", "failed"])
def test_attempts_without_money_are_ignored(books, status):
    books.add("razorpay", 1, "order_1", status)
    books.add("razorpay", 2, "order_2", status)
    order(2, "created")
    assert counts(run()) == (0, 0, 0, 0)


@BOTH
def test_of_several_payments_of_an_order_the_one_that_paid_counts(books, provider):
    for n, status in enumerate(("failed", "created", "authorized", "refunded"), start=1):
        books.add(provider, n, "order_1", status)
    order(1, payment=books.add(provider, 9, "order_1"), provider=provider)
    assert counts(run(provider)) == (1, 0, 0, 0)


@BOTH
def test_an_order_that_was_paid_twice_is_told(books, provider):
    first = books.add(provider, 1, "order_1")
    second = books.add(provider, 2, "order_1")
    order(1, payment=first, provider=provider)
    found = run(provider)
    assert counts(found) == (1, 0, 0, 1)
    said = f"payment: ours {first}, theirs {second}: the order was paid twice"
    assert rows(found) == [("different", "order_1", second, said)]


def paid_twice(books, ours, theirs, **fields):
    """An order whose second payment is known here to have brought money, too; what is told of it."""
    row = order(1, payment=books.add("razorpay", 1, "order_1"))
    tried(row, books.add("razorpay", 2, "order_1", theirs, **fields), ours)
    found = run()
    return (found.agreed, [difference for *_, difference in rows(found)])


def test_a_second_payment_that_is_known_here_agrees(books):
    assert paid_twice(books, "paid", "paid") == (2, [])


def test_what_became_of_a_known_second_payment_is_told(books):
    assert paid_twice(books, "paid", "refunded") == (
        1,
        [
            "payment pay_2, status: ours paid, theirs refunded; payment pay_2, refunded: ours 0, theirs 50000"
        ],
    )


def test_a_second_payment_that_is_paid_here_only_is_told(books):
    assert paid_twice(books, "paid", "failed") == (
        1,
        ["payment pay_2, status: ours paid, theirs failed"],
    )


def test_a_second_payment_of_which_no_money_was_heard_was_paid_twice(books):
    assert paid_twice(books, "failed", "paid") == (
        1,
        ["payment: ours pay_1, theirs pay_2: the order was paid twice"],
    )


def test_any_payment_that_was_tried_leads_to_its_order(books):
    """The books need not name the order."""
    row = order(1, "failed", books.add("razorpay", 1, None, "failed"))
    paid = books.add("razorpay", 2, None)
    tried(row, paid, "failed")
    assert rows(run()) == [("different", "order_1", paid, "status: ours failed, theirs paid")]


@pytest.mark.parametrize("ours", [{}, {"expected_at": "now"}])
def test_what_an_attempt_said_binds_nothing(books, ours):
    """A failed attempt of 300 says nothing of the payment of 500 after it, nor of what was announced."""
    fields = {"expected_at": ago(hours=3)} if ours else {}
    failed = books.add("razorpay", 1, "order_1", "failed", amount=30000, email="x@y.example")
    order(1, "failed", failed, amount=50000 if ours else 30000, **fields)
    paid = books.add("razorpay", 2, "order_1", email="other@y.example")
    found = run()
    assert rows(found) == [("different", "order_1", paid, "status: ours failed, theirs paid")]
    assert found.agreed == 1


def test_what_was_announced_is_compared(books):
    order(1, "created", amount=40000, expected_email="buyer@example.com", email=None)
    paid = books.add("razorpay", 1, "order_1", email="x@y.example")
    said = (
        "amount: ours 40000, theirs 50000; status: ours created, theirs paid;"
        " email: ours buyer@example.com, theirs x@y.example"
    )
    assert rows(run()) == [("different", "order_1", paid, said)]


def test_a_refund_that_we_do_not_know_is_told(books):
    order(1, payment=books.add("razorpay", 1, "order_1", refunded=200))
    order(2, payment=books.add("razorpay", 2, "order_2", "refunded"))
    partial = books.add("razorpay", 3, "order_3", refunded=300)
    order(3, "partially_refunded", partial, refunded=200)
    assert [row[3] for row in rows(run())] == [
        "status: ours paid, theirs partially refunded; refunded: ours 0, theirs 200",
        "status: ours paid, theirs refunded; refunded: ours 0, theirs 50000",
        "refunded: ours 200, theirs 300",
    ]


def test_an_order_that_is_paid_here_only_is_told(books):
    order(1, payment=books.add("razorpay", 1, "order_1", "failed"))
    order(2, payment="pay_2")
    books.add("razorpay", "attempt", "order_2", "failed")
    found = run()
    assert counts(found) == (0, 0, 1, 1)
    assert rows(found) == [
        ("different", "order_1", "pay_1", "status: ours paid, theirs failed"),
        ("missing_there", "order_2", "pay_2", "paid here, not there"),
    ]


def test_an_order_of_another_name_or_provider_is_told(books):
    order(1, payment=books.add("razorpay", 1, "order_other"))
    order(2, "created", provider="stripe")
    books.add("razorpay", 2, "order_2")
    assert [row[3] for row in rows(run())] == [
        "order: ours order_1, theirs order_other",
        "provider: ours stripe, theirs razorpay; status: ours created, theirs paid",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("Buyer@Example.com", "buyer@example.COM"), (None, "a@b.example"), ("a@b.example", None)],
)
def test_an_address_is_compared_where_both_know_it(books, ours, theirs):
    order(1, payment=books.add("razorpay", 1, "order_1", email=theirs), email=ours)
    assert counts(run()) == (1, 0, 0, 0)


@BOTH
def test_batches_and_pages_lose_nothing(books, provider, monkeypatch):
    monkeypatch.setattr(comparison, "BATCH", 7)
    monkeypatch.setattr(reconcile, "BATCH", 7)
    at = ago(hours=3)
    for n in range(30):
        order(n, payment=books.add(provider, n, f"order_{n}"), provider=provider)
    for n in range(30, 60):
        order(n, payment=f"gone_{n}", provider=provider, at=at)
    for n in range(60, 90):
        order(n, "created", provider=provider, at=at)
        books.add(provider, n, f"order_{n}", at=ago(hours=30))
    for n in range(90, 120):
        books.add(provider, n, f"order_{n}")
    found = run(provider)
    assert counts(found) == (30, 30, 30, 30)
    assert len(set(rows(found))) == 90


def test_no_more_orders_are_asked_for_than_the_limit(books, monkeypatch):
    monkeypatch.setattr(reconcile, "ASKED_AT_MOST", 3)
    for n in range(5):
        order(n, "created")
    for n in range(5, 10):
        order(n, payment=f"pay_{n}")
    assert counts(run()) == (0, 0, 5, 0)
    asked = [path for path, _ in books.asked]
    assert sum(path.startswith("/v1/orders/") for path in asked) == 3 + 3
    assert sum(path.startswith("/v1/payments/") for path in asked) == 3


def test_a_comparison_changes_nothing_in_the_ledger(books):
    order(1, "created")
    books.add("razorpay", 1, "order_1")
    books.add("razorpay", 2, "order_2")
    order(3, payment="pay_3")
    before = list(Transaction.objects.order_by("id").values())
    assert counts(run()) == (0, 1, 1, 1)
    assert list(Transaction.objects.order_by("id").values()) == before
    assert not WebhookDelivery.objects.exists()
    assert not Task.objects.exists()


@BOTH
def test_a_provider_that_fails_ends_the_run_with_its_error(books, provider):
    for n in range(700):
        books.add(provider, n, f"order_{n}")
    books.fails_from = 7
    with pytest.raises(ProviderError):
        run(provider)
    found = Reconciliation.objects.get()
    assert "trouble" in found.error
    assert found.finished_at is not None
    assert found.missing_here == 500 == found.rows.count()


def test_a_run_can_be_ended_from_outside(books):
    def lost():
        raise LostLease("given to another")

    books.add("razorpay", 1, "order_1")
    with pytest.raises(LostLease):
        run(step=lost)
    found = Reconciliation.objects.get()
    assert (found.error, counts(found)) == ("given to another", (0, 0, 0, 0))
    assert found.finished_at is not None


def test_a_provider_that_cannot_be_asked(books, settings):
    with pytest.raises(UnknownProvider):
        run("paypal")
    assert not Reconciliation.objects.exists()
    settings.STRIPE_API_KEY = ""
    with pytest.raises(NotConfigured):
        run("stripe")
    assert "STRIPE_API_KEY" in Reconciliation.objects.get().error


def test_webhooks_and_books_tell_the_same(books):
    """What the real door wrote agrees with what the provider's API tells."""
    deliver("payment.authorized", "evt_1", id="pay_1", order="order_1")
    deliver("payment.captured", "evt_2", id="pay_1", order="order_1")
    deliver("payment.captured", "evt_3", id="pay_2", order=None)
    deliver("payment.failed", "evt_4", id="pay_3", order="order_3")
    deliver("payment.captured", "evt_5", id="pay_4", order="order_4")
    deliver("refund.processed", "evt_6", id="pay_4", order="order_4", refunded=200)
    books.add("razorpay", 1, "order_1")
    books.add("razorpay", 2, None)
    books.add("razorpay", 3, "order_3", "failed")
    books.add("razorpay", 4, "order_4", refunded=200)
    long_ago()
    assert counts(run()) == (4, 0, 0, 0)


def test_the_set_of_what_was_seen_holds_what_was_added():
    seen = comparison.Seen()
    seen.add(["a", "b"])
    seen.add(["b", "\x00"])
    assert seen.among(["a", "c", "\x00"]) == {"a", "\x00"}
    assert seen.among([]) == set()
    seen.close()


@pytest.mark.parametrize("batch", [1, 500])
def test_a_payment_that_a_listing_shows_twice_is_compared_once(books, monkeypatch, batch):
    monkeypatch.setattr(comparison, "BATCH", batch)
    books.add("razorpay", 1, "order_1")
    books.payments["razorpay"] *= 2
    found = run()
    assert counts(found) == (0, 1, 0, 0)
    assert ReconciliationRow.objects.count() == 1
