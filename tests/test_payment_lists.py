"""The console's lists of payments and deliveries: filters, pages, counts and sums."""

from datetime import datetime, timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from payments.console import totals as sums
from payments.console import views
from payments.models import OrderPayment, Transaction, WebhookDelivery
from queues.console.keyset import first_id
from tests.console import words
from tests.payment_console import assert_pages, fill, listed

pytestmark = pytest.mark.django_db

LISTS = ["list", "deliveries", "reconciliations", "differences"]


@pytest.mark.parametrize("name", LISTS)
def test_without_a_row_a_list_says_what_will_be_there(client_of, name):
    text = words(client_of("payments").get(reverse(f"payments:{name}")))
    assert {
        "list": "No payment yet",
        "deliveries": "No delivery yet",
        "reconciliations": "Nothing was compared yet",
        "differences": "No open difference",
    }[name] in text


@pytest.mark.parametrize("name", LISTS)
def test_a_page_of_many_costs_as_many_queries_as_a_page_of_one(client_of, sql, name):
    client, url = client_of("payments"), reverse(f"payments:{name}")

    def look():
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            assert client.get(url).status_code == 200
        assert not [q for q in captured if " OFFSET " in q["sql"].upper()]
        return len(captured)

    fill(sql, 1)
    one = look()
    fill(sql, 120, first=2)
    assert look() == one


PAYMENTS = {
    "a": {"status": "created", "email": "asha@example.com"},
    "b": {"status": "paid", "payment_id": "pay_b", "currency": "USD", "fulfilled_at": "now"},
    "c": {"status": "paid", "provider": "stripe", "paid_at": timedelta(hours=2)},
    "d": {"status": "paid", "held_at": "now", "paid_at": "now"},
    "e": {"status": "refunded", "paid_at": timedelta(hours=2), "refunded": 100},
    "f": {"status": "paid", "paid_at": "now"},
    "g": {"status": "authorized"},
}


def tried(row, payment):
    OrderPayment.objects.create(
        provider=row.provider, payment_id=payment, transaction=row, status="failed"
    )


@pytest.fixture
def ledger_of_seven():
    now, made = timezone.now(), {}
    for name, fields in PAYMENTS.items():
        moments = {
            key: now if value == "now" else now - value
            for key, value in fields.items()
            if key.endswith("_at")
        }
        row = Transaction.objects.create(order_id=name, amount=100, **fields | moments)
        if row.payment_id:
            for payment in (row.payment_id, f"{row.payment_id}_failed"):
                tried(row, payment)
        made[str(row.pk)] = name
    contradicted = next(id for id, name in made.items() if name == "g")
    for handled in (None, now):
        WebhookDelivery.objects.create(
            provider="razorpay",
            verdict="mismatch",
            body=b"",
            transaction_id=contradicted if handled is None else next(iter(made)),
            handled_at=handled,
        )
    return made


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "gfedcba"),
        ("?status=paid", "fdcb"),
        ("?provider=stripe", "c"),
        ("?currency=USD", "b"),
        ("?attention=any", "gdc"),
        ("?attention=unfulfilled", "c"),
        ("?attention=held", "d"),
        ("?attention=mismatch", "g"),
        ("?attention=any&provider=stripe", "c"),
        ("?q=a", "a"),
        ("?q=%20pay_b%20", "b"),
        ("?q=pay_b_failed", "b"),
        ("?q=asha@example.com", "a"),
        ("?q=Asha@Example.com", "a"),
        ("?q=pay_", ""),
        ("?q=%00a", ""),
        ("?status=paid&currency=USD&q=b", "b"),
        ("?since=2099-01-01", ""),
        ("?until=1999-01-01", ""),
        ("?since=2020-01-01", "gfedcba"),
        ("?status=refunded&attention=held", ""),
    ],
)
def test_filters_keep_what_matches(client_of, ledger_of_seven, query, found):
    page = client_of("payments").get(f"/payments/{query}")
    assert "".join(ledger_of_seven[id] for id in listed(page)) == found
    text = words(page)
    assert f"{len(found)} payment{'' if len(found) == 1 else 's'}" in text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?status=lost", "There is no status 'lost'; all are shown."),
        ("?provider=%00", "There is no provider '\\x00'; all are shown."),
        ("?currency=XXX", "There is no currency 'XXX'; all are shown."),
        ("?attention=me", "There is no attention 'me'; all are shown."),
        ("?since=yesterday", "'yesterday' is no date; write it as 2026-01-31."),
        ("?until=0001-01-01", "'0001-01-01' is no date; write it as 2026-01-31."),
        ("?until=9999-12-31", "'9999-12-31' is no date; write it as 2026-01-31."),
    ],
)
def test_a_bad_value_is_named_in_a_sentence(client_of, ledger_of_seven, query, sentence):
    page = client_of("payments").get(f"/payments/{query}")
    assert sentence in words(page)
    assert len(listed(page)) == len(PAYMENTS)


def test_days_are_those_on_which_we_first_heard_of_an_order(client_of):
    zone = timezone.get_default_timezone()
    for day in (1, 2, 3):
        moment = datetime(2026, 3, day, tzinfo=zone)
        for n, at in enumerate((moment, moment + timedelta(hours=23, minutes=59, seconds=59))):
            id = first_id(at).int + (0x7000 << 64) + n + 1
            Transaction.objects.create(
                pk=f"{id:032x}", order_id=f"{day}-{n}", amount=1, created_at=at
            )
    client = client_of("payments")

    def orders(query):
        ids = listed(client.get(f"/payments/{query}"))
        names = dict(Transaction.objects.values_list("pk", "order_id"))
        return sorted(names[pk] for pk in names if str(pk) in ids)

    assert orders("?since=2026-03-02&until=2026-03-02") == ["2-0", "2-1"]
    assert orders("?since=2026-03-02") == ["2-0", "2-1", "3-0", "3-1"]
    assert orders("?until=2026-03-01") == ["1-0", "1-1"]


@pytest.mark.parametrize("kind", ["payments", "deliveries"])
def test_pages_to_the_end_and_back_show_each_row_once(client_of, sql, kind):
    fill(sql, 170)
    model = Transaction if kind == "payments" else WebhookDelivery
    expected = [str(id) for id in model.objects.order_by("-id").values_list("id", flat=True)]
    client = client_of("payments")
    url = {"payments": "/payments/", "deliveries": "/payments/deliveries/"}[kind]
    assert_pages(client, url, kind, expected)


def test_the_oldest_unfulfilled_payment_comes_first(client_of, sql):
    fill(
        sql,
        120,
        paid_at="now() - n / 3 * interval '1 hour' - interval '1 hour'",
        fulfilled_at="NULL",
    )
    rows = Transaction.objects.order_by("paid_at", "id")
    expected = [str(id) for id in rows.values_list("id", flat=True)]
    assert_pages(client_of("payments"), "/payments/?attention=unfulfilled", "payments", expected)


@pytest.mark.parametrize("cursor", ["x", "-", "%00", "WzFd"])
def test_a_cursor_that_cannot_be_read_gives_the_first_page(client_of, ledger_of_seven, cursor):
    page = client_of("payments").get(f"/payments/?cursor={cursor}")
    assert len(listed(page)) == len(PAYMENTS)


def test_a_count_that_ends_early_says_so(client_of, sql):
    fill(sql, 10_001)
    assert "more than 10,000 payments match" in words(
        client_of("payments").get("/payments/?status=paid")
    )


def test_money_is_added_up_by_currency_and_day(client_of, sql):
    today = timezone.localtime().replace(hour=12)

    def paid(n, amount, currency, back=0, **ago):
        moment = today - timedelta(**ago)
        status = "refunded" if back == amount else "partially_refunded" if back else "paid"
        Transaction.objects.create(
            order_id=f"o{n}",
            amount=amount,
            currency=currency,
            refunded=back,
            status=status,
            paid_at=moment,
            fulfilled_at=moment,
        )

    paid(1, 123_450, "INR")
    paid(2, 50, "INR", back=20)
    paid(3, 500, "JPY", back=500)
    paid(4, 1_000, "INR", days=6)
    paid(5, 99_999, "INR", days=7)
    Transaction.objects.create(order_id="o6", amount=77, status="failed")
    client = client_of("payments")
    text = words(client.get("/payments/"))
    assert "INR: 3 payments came in INR 1,245.00 INR 0.20 of it went back" in text
    assert "JPY: 1 payment came in JPY 500 JPY 500 of it went back" in text
    day, week = (f"{today - timedelta(days=d):%Y-%m-%d}" for d in (0, 6))
    assert f"{day} 2 INR 1,235.00 INR 0.20 INR 1,234.80" in text
    assert f"{week} 1 INR 10.00 INR 0.00 INR 10.00" in text
    assert "INR 999.99 INR 0.00" not in text
    earlier = f"{today - timedelta(days=7):%Y-%m-%d}"
    text = words(client.get(f"/payments/?since={earlier}&until={earlier}"))
    assert f"Paid from {earlier} to {earlier} INR: 1 payment came in INR 999.99" in text
    assert "JPY: 1" not in text
    assert "JPY: 1" in words(client.get("/payments/?currency=JPY"))
    assert "INR: " not in words(client.get("/payments/?currency=JPY"))


@pytest.mark.parametrize("query", ["provider=stripe", "status=paid", "attention=held", "q=o1"])
def test_sums_that_do_not_follow_the_filter_are_not_shown(client_of, sql, query):
    fill(sql, 3)
    client = client_of("payments")
    assert "INR: 3 payments came in" in words(client.get("/payments/"))
    text = words(client.get(f"/payments/?{query}"))
    assert "came in INR" not in text
    assert "added up for all payments" in text


def test_the_days_of_the_sums_are_named(client_of, sql):
    fill(sql, 1)
    text = words(client_of("payments").get("/payments/?since=2020-01-01"))
    assert "Here the days are those of the payment" in text


@pytest.mark.parametrize(
    ("since", "until", "span"),
    [
        (None, None, (6, 0)),
        (10, None, (10, 0)),
        (400, None, (400, 370)),
        (400, 0, (30, 0)),
        (None, 40, (46, 40)),
        (5, 9, (9, 9)),
        (-9, -3, (0, 0)),
    ],
)
def test_totals_are_of_a_bounded_span(since, until, span):
    def day(ago):
        return None if ago is None else timezone.localdate() - timedelta(days=ago)

    made = sums.totals(day(since), day(until))
    assert (made.since, made.until) == (day(span[0]), day(span[1]))


def test_known_values_are_read_from_the_index_alone(sql):
    fill(sql, 30, currency="(ARRAY['INR', 'USD', 'KWD'])[n % 3 + 1]", provider="'p' || n % 2")
    assert sums.known("currency") == ["INR", "KWD", "USD"]
    assert sums.known("provider") == ["p0", "p1"]


def test_a_query_that_takes_too_long_ends_in_a_page_that_says_so(client_of, monkeypatch, settings):
    def slow(*args):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    client = client_of("payments")
    settings.CONSOLE_STATEMENT_TIMEOUT_SECONDS = 0.05
    monkeypatch.setattr(views, "totals", slow)
    response = client.get("/payments/")
    assert response.status_code == 503
    assert "This page took longer than 0.05 seconds" in words(response)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "fedcba"),
        ("?verdict=duplicate", "b"),
        ("?verdict=mismatch", "dc"),
        ("?verdict=mismatch&open=1", "c"),
        ("?verdict=rejected&open=1", "e"),
        ("?open=1", "ce"),
        ("?open=1&provider=razorpay", "e"),
        ("?verdict=rejected", "fe"),
        ("?verdict=accepted&open=1", "a"),
        ("?provider=stripe", "c"),
        ("?q=order_1", "ba"),
        ("?q=evt_1", "ba"),
        ("?q=pay_1", "a"),
        ("?verdict=duplicate&q=evt_1", "b"),
        ("?q=evt_", ""),
        ("?since=2099-01-01", ""),
    ],
)
def test_deliveries_are_found_by_verdict_provider_and_whole_ids(client_of, query, found):
    row = Transaction.objects.create(order_id="order_1", payment_id="pay_2", amount=1)
    tried(row, "pay_1")
    deliveries = {
        "a": {
            "verdict": "accepted",
            "event_id": "evt_1",
            "order_id": "order_1",
            "transaction_id": row.pk,
        },
        "b": {"verdict": "duplicate", "event_id": "evt_1", "order_id": "order_1"},
        "c": {"verdict": "mismatch", "event_id": "evt_2", "provider": "stripe"},
        "d": {"verdict": "mismatch", "handled_at": timezone.now(), "handled_by": "asha"},
        "e": {"verdict": "rejected"},
        "f": {"verdict": "rejected", "signed": False},
    }
    made = {
        str(WebhookDelivery.objects.create(body=b"", **{"provider": "razorpay"} | fields).pk): name
        for name, fields in deliveries.items()
    }
    page = client_of("payments").get(f"/payments/deliveries/{query}")
    assert "".join(made[id] for id in listed(page, "deliveries")) == found
    assert f"{len(found)} deliver{'y' if len(found) == 1 else 'ies'}" in words(page)
