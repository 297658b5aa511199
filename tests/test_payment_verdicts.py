"""What the overview says of payments, and where its buttons lead."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from payments.console.attention import attention
from payments.models import Reconciliation, ReconciliationRow, Transaction, WebhookDelivery
from tests.console import words

pytestmark = pytest.mark.django_db


@pytest.fixture
def problems(client_of):
    """What the overview asks of a member of the payments group: by title."""

    def look(group="payments"):
        cache.clear()
        page = client_of(group).get("/")
        assert page.status_code == 200
        return {problem.title: problem for problem in page.context["problems"]}

    return look


def pay(order, amount=100, currency="INR", **fields):
    fields = {
        key: timezone.now() - value if isinstance(value, timedelta) else value
        for key, value in fields.items()
    }
    values = {"status": "paid", "paid_at": timezone.now() - timedelta(hours=1)} | fields
    return Transaction.objects.create(order_id=order, amount=amount, currency=currency, **values)


def test_money_at_risk_is_told_by_currency_with_the_age_of_the_oldest(problems, client_of):
    pay("a", 123_450)
    pay("b", 500, "JPY", paid_at=timedelta(hours=3))
    pay("c", 1_000, status="partially_refunded", refunded=400)
    pay("fresh", 7_000, paid_at=timedelta(minutes=1))
    pay("given", 7_000, fulfilled_at=timezone.now())
    pay("back", 7_000, status="refunded", refunded=7_000)
    pay("held", 7_000, held_at=timezone.now())
    told = problems()["3 orders paid but not fulfilled"]
    assert told.reason == "The oldest was paid 3 h ago. Money at risk: INR 1,240.50, JPY 500."
    text = words(client_of("payments").get(told.url))
    assert "3 payments match" in text


def test_held_orders_are_told_at_once(problems, client_of):
    pay("a", 500, held_at=timezone.now(), paid_at=timezone.now())
    told = problems()["1 paid order held for a person"]
    assert "Money at risk: INR 5.00." in told.reason
    assert "1 payment matches" in words(client_of("payments").get(told.url))


def test_open_mismatches_are_told_until_someone_deals_with_them(problems, client_of):
    for n in range(2):
        WebhookDelivery.objects.create(
            provider="razorpay",
            verdict="mismatch",
            body=b"",
            received_at=timezone.now() - timedelta(days=40 * n),
        )
    told = problems()["2 webhooks contradict the ledger"]
    assert "2 deliveries match" in words(client_of("payments").get(told.url))
    WebhookDelivery.objects.update(handled_at=timezone.now())
    assert not [title for title in problems() if "contradict" in title]


def run(rows=0, handled=0, **fields):
    finished = fields.pop("finished_at", timezone.now())
    made = Reconciliation.objects.create(
        **{"provider": "razorpay", "source": "provider", "finished_at": finished} | fields
    )
    for n in range(rows + handled):
        ReconciliationRow.objects.create(
            reconciliation=made,
            finding="different",
            handled_at=timezone.now() if n < handled else None,
        )
    return made


def test_differences_are_those_of_the_newest_whole_comparison(problems, client_of):
    run(rows=9)
    newest = run(rows=2, handled=1)
    run(rows=5, finished_at=None)
    told = problems()["2 payments of razorpay differ from its books"]
    assert str(newest.pk) in told.url
    assert client_of("payments").get(told.url).status_code == 200
    run(rows=0, handled=3)
    assert not problems()


def test_a_comparison_that_broke_off_is_told_until_one_succeeds(problems):
    run(rows=1)
    run(error="razorpay answered 401")
    found = problems()
    assert found["The ledger could not be compared with razorpay"].reason == "razorpay answered 401"
    assert "1 payment of razorpay differs from its books" in found
    run()
    assert not problems()


def test_a_statement_and_the_books_are_told_apart(problems):
    run(rows=1, source="statement", name="june.csv")
    run(rows=0)
    assert (
        "the statement june.csv"
        in problems()["1 payment of razorpay differs from its books"].reason
    )


@pytest.mark.parametrize("group", ["viewer", "operator"])
def test_money_is_told_to_those_who_may_see_it(problems, group):
    pay("a")
    WebhookDelivery.objects.create(provider="razorpay", verdict="mismatch", body=b"")
    run(rows=1)
    assert not problems(group)


def test_what_is_counted_ends_at_its_cap(sql, problems):
    sql(
        "INSERT INTO transactions (order_id, amount, status, paid_at)"
        " SELECT 'o' || n, 100, 'paid', now() - interval '1 hour' - n * interval '1 s'"
        " FROM generate_series(1, 10200) n"
    )
    told = problems()["10,000+ orders paid but not fulfilled"]
    assert "Money at risk: at least INR 10,001.00." in told.reason


def test_the_picture_is_shared_for_a_moment(django_assert_num_queries):
    attention()
    with django_assert_num_queries(0):
        attention()
