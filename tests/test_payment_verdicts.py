"""What the overview says of payments, and where its buttons lead."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from payments.console.attention import attention
from payments.models import Reconciliation, ReconciliationRow, Transaction, WebhookDelivery
from queues.console.keyset import first_id
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
    assert told.reason == "The oldest came 40 d ago. Nothing was changed."
    assert "2 deliveries match" in words(client_of("payments").get(told.url))
    WebhookDelivery.objects.update(handled_at=timezone.now())
    assert not [title for title in problems() if "contradict" in title]


def test_what_a_mismatch_speaks_of_is_at_risk_once(problems):
    for payment, amount in (("pay_1", 50_000), ("pay_1", 50_000), ("pay_2", 700), ("pay_3", "x")):
        WebhookDelivery.objects.create(
            provider="razorpay",
            verdict="mismatch",
            body=b"",
            payment_id=payment,
            claim={"amount": amount, "currency": "INR"},
            received_at=timezone.now() - timedelta(hours=2),
        )
    told = problems()["4 webhooks contradict the ledger"].reason
    assert told == "The oldest came 2 h ago. Nothing was changed. Money at risk: INR 507.00."


def run(rows=0, handled=0, **fields):
    finished = fields.pop("finished_at", timezone.now())
    made = Reconciliation.objects.create(
        **{"provider": "razorpay", "source": "provider", "finished_at": finished} | fields
    )
    for n in range(rows + handled):
        ReconciliationRow.objects.create(
            reconciliation=made,
            provider=made.provider,
            finding="different",
            order_id=f"{made.pk} {n}",
            handled_at=timezone.now() if n < handled else None,
        )
    return made


def test_open_differences_of_all_comparisons_are_told_by_provider(problems, client_of, sql):
    run(rows=2, handled=1)
    run(rows=1, source="statement", name="june.csv")
    run(rows=1, provider="stripe")
    run(rows=0, handled=3)
    sql(
        "UPDATE reconciliation_rows SET id = overlay(id::text placing %s from 1 for 13)::uuid"
        " WHERE id = (SELECT id FROM reconciliation_rows WHERE handled_at IS NULL ORDER BY id LIMIT 1)",
        str(first_id(timezone.now() - timedelta(days=9)))[:13],
    )
    found = problems()
    told = found["3 payments of razorpay differ from its books"]
    assert told.reason == "The oldest difference was found 9 d ago."
    assert "3 open differences, the oldest first" in words(client_of("payments").get(told.url))
    told = found["1 payment of stripe differs from its books"]
    assert "1 open difference" in words(client_of("payments").get(told.url))
    ReconciliationRow.objects.update(handled_at=timezone.now())
    assert not problems()


def test_many_differences_with_one_provider_do_not_hide_those_with_another(problems, sql):
    made = run()
    sql(
        "INSERT INTO reconciliation_rows (reconciliation_id, provider, finding, order_id)"
        " SELECT %s, 'razorpay', 'different', 'o' || n FROM generate_series(1, 10200) n",
        made.pk,
    )
    run(rows=1, provider="stripe")
    found = problems()
    assert "10,000+ payments of razorpay differ from its books" in found
    assert "1 payment of stripe differs from its books" in found


def test_a_comparison_that_broke_off_is_told_until_one_succeeds(problems):
    run(rows=1)
    run(error="razorpay answered 401")
    run(finished_at=None)
    found = problems()
    assert found["The ledger could not be compared with razorpay"].reason == "razorpay answered 401"
    assert "1 payment of razorpay differs from its books" in found
    run()
    assert "The ledger could not be compared with razorpay" not in problems()


def test_a_comparison_that_left_something_out_is_told_until_one_is_whole(problems, client_of):
    run(unread=1, not_asked=2)
    told = problems()["The ledger was compared with razorpay in part"]
    assert told.reason == (
        "1 payment of its books could not be read; the log names it. 2 orders that its listing did not show were not"
        " asked for one by one."
    )
    page = words(client_of("payments").get(told.url))
    assert "Razorpay in part" in page
    assert told.reason in page
    run()
    assert not problems()


def test_signed_deliveries_that_could_not_be_read_are_told(problems, client_of):
    for signed in (True, True, False):
        WebhookDelivery.objects.create(
            provider="razorpay", verdict="rejected", signed=signed, body=b"", reason="No amount."
        )
    told = problems()["2 signed deliveries could not be read: they may be money"]
    assert told.reason.startswith("The oldest came ")
    assert "reconcile with the provider" in told.reason
    text = words(client_of("payments").get(told.url))
    assert "2 deliveries match" in text
    assert "to decide (2)" in text
    WebhookDelivery.objects.filter(signed=True).update(handled_at=timezone.now())
    assert not problems()


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
