"""The providers' books, asked through their own clients from a server that answers as theirs do."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from payments.providers.base import NotConfigured, ProviderError, load
from tests import fake_providers

BOTH = pytest.mark.parametrize("provider", ["razorpay", "stripe"])
ERRORS = pytest.mark.parametrize("failure", [500, 503, "close"])


def span(hours=72):
    now = timezone.now()
    return now - timedelta(hours=hours), now


@BOTH
def test_all_pages_of_a_listing_are_read(books, provider):
    ids = [books.add(provider, n, f"order_{n}") for n in range(250)]
    books.add(provider, "old", "order_old", at=timezone.now() - timedelta(days=9))
    found = list(load(provider).payments(*span()))
    assert sorted(payment.payment_id for payment in found) == sorted(ids)
    pages = [query for _, query in books.asked]
    place = "skip" if provider == "razorpay" else "starting_after"
    assert len({query.get(place) for query in pages}) == len(pages) == 3


@BOTH
def test_a_listing_that_ends_with_a_whole_page_is_read(books, provider):
    for n in range(100):
        books.add(provider, n, f"order_{n}")
    assert len(list(load(provider).payments(*span()))) == 100


@BOTH
def test_no_payments_are_no_error(books, provider):
    assert list(load(provider).payments(*span())) == []
    assert load(provider).payments_of("order_1") == []
    assert load(provider).payment("pi_1") is None


@BOTH
@pytest.mark.parametrize("status", ["created", "authorized", "failed", "paid", "refunded"])
def test_each_status_is_understood(books, provider, status):
    books.add(provider, 1, "order_1", status)
    [payment] = load(provider).payments_of("order_1")
    assert payment.status == status
    assert payment.amount == 50000
    assert payment.refunded == (50000 if status == "refunded" else 0)


@BOTH
def test_a_payment_is_read_whole(books, provider):
    at = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    id = books.add(provider, 1, "order_1", amount=700, refunded=200, currency="KWD", at=at)
    asked = load(provider)
    payment = asked.payment(id)
    assert (payment.payment_id, payment.order_id, payment.email) == (
        id,
        "order_1",
        "buyer@example.com",
    )
    assert (payment.status, payment.amount, payment.refunded) == ("partially_refunded", 700, 200)
    assert (payment.currency, payment.created_at) == ("KWD", at)
    assert json.loads(json.dumps(payment.raw))["id"] == id
    assert asked.payments_of("order_1") == [payment]
    assert list(asked.payments(at - timedelta(hours=1), at)) == [payment]


@BOTH
def test_what_is_odd_in_one_payment_does_not_end_the_listing(books, provider):
    names = {"razorpay": "email", "stripe": "receipt_email"}
    books.add(provider, 1, "x" * 501, **{names[provider]: "a\nb@example.com"})
    books.add(provider, 2, None, email=None)
    found = {payment.payment_id[-1]: payment for payment in load(provider).payments(*span())}
    assert (found["1"].order_id, found["1"].email) == (None, None)
    assert (found["2"].order_id, found["2"].email) == (None, None)


@pytest.mark.parametrize("order", ['say "hi"', "back\\slash", "a/b?c#d", "größe 💳"])
@BOTH
def test_an_order_of_any_name_is_asked_for(books, provider, order):
    order = f"order_{order}"
    id = books.add(provider, 1, order)
    assert [payment.payment_id for payment in load(provider).payments_of(order)] == [id]


def test_an_order_that_razorpay_never_made_has_no_payments(books):
    assert load("razorpay").payments_of("shop-17") == []


def test_a_stripe_account_that_may_not_search_is_asked_for_its_listing_only(books):
    books.may_search = False
    books.add("stripe", 1, "order_1")
    assert load("stripe").payments_of("order_1") == []
    assert len(list(load("stripe").payments(*span()))) == 1


@BOTH
def test_a_wrong_key_is_said(books, provider, settings):
    settings.RAZORPAY_KEY_SECRET = settings.STRIPE_API_KEY = "another"
    for ask in (
        lambda: list(load(provider).payments(*span())),
        lambda: load(provider).payment("x"),
    ):
        with pytest.raises(ProviderError, match="Authentication failed"):
            ask()
    assert len(books.asked) == 2


@BOTH
def test_without_a_key_nothing_is_asked(books, provider, settings):
    settings.RAZORPAY_KEY_ID = settings.STRIPE_API_KEY = ""
    asked = load(provider)
    assert not asked.has_key()
    with pytest.raises(NotConfigured, match=r"RAZORPAY_KEY_ID|STRIPE_API_KEY"):
        asked.payments_of("order_1")
    assert books.asked == []


@BOTH
@ERRORS
def test_a_failure_that_passes_is_not_noticed(books, provider, failure):
    for n in range(150):
        books.add(provider, n, f"order_{n}")
    books.failures = [failure]
    assert len(list(load(provider).payments(*span()))) == 150


@BOTH
@ERRORS
def test_a_failure_that_lasts_is_raised_and_printed_nowhere(books, provider, failure, capfd):
    books.failures = [failure] * 3
    with pytest.raises(ProviderError, match=f"(?i){provider}"):
        list(load(provider).payments(*span()))
    assert len(books.asked) == 3
    assert capfd.readouterr().out == ""


@BOTH
def test_a_failure_without_words_is_named(books, provider, monkeypatch):
    monkeypatch.setattr(fake_providers, "TROUBLE", "")
    books.failures = [500] * 3
    with pytest.raises(ProviderError) as caught:
        list(load(provider).payments(*span()))
    assert "500" in str(caught.value)
    assert "empty message" not in str(caught.value)


@BOTH
@pytest.mark.parametrize(
    "wrong", [{"amount": "12"}, {"amount": -1}, {"currency": "rupees"}, {"id": ""}]
)
def test_a_payment_that_cannot_be_read_is_told_and_does_not_hide_the_others(books, provider, wrong):
    odd = books.add(provider, 1, "order_1", "authorized", at=timezone.now(), **wrong)
    books.add(provider, 2, "order_2")
    asked = load(provider)
    unread, payment = asked.payments(*span())
    assert unread.payment_id == wrong.get("id", odd) or unread.payment_id is None
    assert next(iter(wrong)) in unread.reason
    assert payment.order_id == "order_2"
    assert asked.payments_of("order_1") == [unread]
    if unread.payment_id:
        assert asked.payment(odd) == unread


@BOTH
def test_an_answer_that_is_not_json_is_an_error(books, provider, capfd):
    books.failures = ["html"]
    with pytest.raises(ProviderError):
        list(load(provider).payments(*span()))
    assert capfd.readouterr().out == ""
