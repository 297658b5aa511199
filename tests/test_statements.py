"""Statements: exports of payments, read from CSV files and compared with the ledger."""

import io
from datetime import UTC, datetime

import pytest

from payments import comparison, reconcile
from payments.decisions import apply_row
from payments.models import Reconciliation, Transaction
from payments.money import minor_units
from payments.providers.base import UnknownProvider
from payments.statements import BadStatement, Statement, reconcile_statement
from tests.test_reconcile import ago, counts, order, rows

pytestmark = pytest.mark.django_db
HEADER = "payment_id,order_id,amount,currency,status\n"
RAZORPAY = """\
id,amount,currency,status,order_id,method,amount_refunded,email,contact,notes,created_at
pay_1,500.00,INR,captured,order_1,upi,0,buyer@example.com,+919999999999,"{""a"":""b, c""}",01/11/2026 18:30:05
pay_2,1234.5,INR,captured,order_2,card,200.5,void@example.com,,[],2026-11-02 00:00:00+05:30
pay_3,10,INR,refunded,,card,10,,,[],1793577600
pay_4,10,INR,failed,order_4,card,,,,[],
"""
STRIPE = """\
id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Status,PaymentIntent ID,Customer Email,order_id (metadata)
ch_1,2026-11-01 13:00:05,500.00,0.00,inr,true,Paid,pi_1,buyer@example.com,order_1
ch_2,2026-11-01 18:30,1234.50,200.50,inr,true,Partial Refund,pi_2,,order_2
ch_3,2026-11-02,10.00,10.00,inr,true,Refunded,,,
ch_4,,10.00,0.00,inr,false,Failed,pi_4,,order_4
"""
SETTLEMENT = """\
entity_id,type,debit,credit,amount,currency,fee,payment_id,order_id,settled_at
pay_1,payment,0,490,500,INR,10,,order_1,02/11/2026
rfnd_1,refund,200,0,200,INR,0,pay_1,order_1,02/11/2026
adj_1,adjustment,5,0,5,INR,0,,,02/11/2026
"""


def read(text, **options):
    body = text if isinstance(text, bytes) else text.encode()
    return list(Statement(io.BytesIO(body), in_minor_units=False, **options).payments())


def compare(text, provider="razorpay", **options):
    body = text if isinstance(text, bytes) else text.encode()
    return reconcile_statement(provider, io.BytesIO(body), "export.csv", "ann", **options)


def told(payment):
    return (
        payment.order_id,
        payment.status,
        payment.amount,
        payment.currency,
        payment.refunded,
        payment.email,
    )


def test_an_export_of_razorpay_is_read():
    found = read(RAZORPAY)
    assert [payment.payment_id for payment in found] == ["pay_1", "pay_2", "pay_3", "pay_4"]
    assert [told(payment) for payment in found] == [
        ("order_1", "paid", 50000, "INR", 0, "buyer@example.com"),
        ("order_2", "partially_refunded", 123450, "INR", 20050, "void@example.com"),
        (None, "refunded", 1000, "INR", 1000, None),
        ("order_4", "failed", 1000, "INR", 0, None),
    ]
    assert [payment.created_at for payment in found] == [
        datetime(2026, 11, 1, 18, 30, 5, tzinfo=UTC),
        datetime(2026, 11, 1, 18, 30, tzinfo=UTC),
        datetime(2026, 11, 2, tzinfo=UTC),
        None,
    ]
    assert found[0].raw["notes"] == '{"a":"b, c"}'


def test_an_export_of_stripe_is_read():
    found = read(STRIPE)
    assert [payment.payment_id for payment in found] == ["pi_1", "pi_2", "ch_3", "pi_4"]
    assert [told(payment) for payment in found] == [
        ("order_1", "paid", 50000, "INR", 0, "buyer@example.com"),
        ("order_2", "partially_refunded", 123450, "INR", 20050, None),
        (None, "refunded", 1000, "INR", 1000, None),
        ("order_4", "failed", 1000, "INR", 0, None),
    ]
    assert found[1].created_at == datetime(2026, 11, 1, 18, 30, tzinfo=UTC)


def test_of_a_settlement_the_payments_are_read():
    [payment] = read(SETTLEMENT)
    assert (payment.payment_id, *told(payment)) == (
        "pay_1",
        *("order_1", "paid", 50000, "INR", None, None),
    )


@pytest.mark.parametrize(
    ("cells", "amount"),
    [
        ("1234.50,INR", 123450),
        ("1234.5,inr", 123450),
        ("1234.500,INR", 123450),
        ("500,JPY", 500),
        ("500.00,JPY", 500),
        ("1.234,KWD", 1234),
        ("0.1,KWD", 100),
        ("90071992547409.92,USD", 2**53),
    ],
)
def test_amounts_are_read_in_the_decimals_of_their_currency(cells, amount):
    [payment] = read(f"{HEADER}pay_1,order_1,{cells},paid\n")
    assert payment.amount == amount


def test_amounts_in_minor_units():
    body = f"{HEADER}pay_1,order_1,50000,INR,paid\n".encode()
    [payment] = Statement(io.BytesIO(body), in_minor_units=True).payments()
    assert payment.amount == 50000
    [payment] = read(
        "id,amount_minor,refunded_minor,currency,status\npay_1,50000,200,INR,captured\n"
    )
    assert (payment.amount, payment.refunded) == (50000, 200)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pay_1,order_1,1.234,INR,paid", "1.234 has more than the 2 decimals of INR"),
        ("pay_1,order_1,1.5,JPY,paid", "1.5 has more than the 0 decimals of JPY"),
        ('pay_1,order_1,"1,234.50",INR,paid', "'1,234.50' is no amount"),
        ("pay_1,order_1,-5,INR,paid", "'-5' is no amount"),
        ("pay_1,order_1,1e3,INR,paid", "'1e3' is no amount"),
        ("pay_1,order_1,NaN,INR,paid", "'NaN' is no amount"),
        ("pay_1,order_1,١٢,INR,paid", "is no amount"),
        ("pay_1,order_1,,INR,paid", "amount is empty"),
        ("pay_1,order_1,90071992547409.93,INR,paid", "above 2**53"),
        ("pay_1,order_1,5,rupees,paid", "currency is 'RUPEES', not three letters"),
        ("pay_1,order_1,5,INR,lost", "status is 'lost'; known are created, pending"),
        ("pay_1,order_1,5,INR,", "status is ''"),
        ("pay_1,order_1,5,INR,partially_refunded", "no column refunded says how much"),
        (",order_1,5,INR,paid", "payment_id is empty"),
        (f"{'x' * 101},order_1,5,INR,paid", "payment_id is not a text of at most 100"),
        ("pay_1,order\x001,5,INR,paid", "order_id is not a text"),
        ("pay_1,order_1,5,INR", "4 fields, but the header has 5"),
        ("pay_1,order_1,5,INR,paid,", "6 fields, but the header has 5"),
        ('pay_1,"order_1,5,INR,paid', "line 3: unexpected end of data"),
        (b"pay_1,order_1\xff,5,INR,paid", "is not UTF-8"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(line, said):
    line = line if isinstance(line, bytes) else line.encode()
    text = HEADER.encode() + b"pay_0,order_0,5,INR,paid\n" + line + b"\n"
    with pytest.raises(BadStatement) as caught:
        compare(text)
    assert str(caught.value).startswith("line 3")
    assert said in str(caught.value)
    assert not Reconciliation.objects.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the file is empty"),
        ("\n\n", "line 1: the file is empty"),
        ("order_id,amount,currency,status\n", "line 1: no column is named payment_id"),
        ("id,currency,status\n", "line 1: no column is named amount, amount_minor"),
        ("id,amount,status\n", "line 1: no column is named currency. The columns are: id, amount"),
        ("id,amount,currency\n", "line 1: no column is named status, type"),
        ("id;amount;currency;status\n", "The columns are: id;amount;currency;status"),
        (HEADER.encode("utf-16"), "line 1 is not UTF-8: save the file as CSV in UTF-8"),
        ("id,amount,currency,status,created_at\npay_1,5,INR,paid,soon\n", "created_at is 'soon'"),
        ("id,amount,amount_minor,currency,status\np,5,500,INR,paid\n", "are both filled in"),
        ("id,amount_minor,currency,status\npay_1,5.0,INR,paid\n", "not a whole number"),
        (b"x" * 1024 * 1024, "line 1 is longer than"),
    ],
)
def test_a_bad_file_is_refused(text, said):
    with pytest.raises(BadStatement) as caught:
        compare(text)
    assert said in str(caught.value)
    assert not Reconciliation.objects.exists()


def test_many_bad_lines_are_told_at_once_but_not_all():
    with pytest.raises(BadStatement) as caught:
        compare(HEADER + "pay_1,order_1,x,INR,paid\n" * 30)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[19].startswith("line 21: ")
    assert lines[20] == "There may be more."


def test_blank_lines_and_a_byte_order_mark_are_passed_over():
    assert (
        len(read(b"\xef\xbb\xbf\r\n" + HEADER.encode() + b"\r\n,,,,\npay_1,o,5,INR,paid\r\n")) == 1
    )


def test_an_unknown_provider():
    with pytest.raises(UnknownProvider):
        compare(HEADER, "paypal")


def lines(*payments, header="payment_id,order_id,amount,currency,status,created_at"):
    return "\n".join([header, *payments, ""])


def booked(n, at, status="paid", amount="500.00"):
    return f"pay_{n},order_{n},{amount},INR,{status},{at.isoformat()}"


def test_the_four_findings():
    order(1, payment="pay_1")
    order(3, payment="pay_3", at=ago(hours=12))
    order(4, "created")
    text = lines(
        booked(1, ago(hours=24)), booked(2, ago(hours=2)), booked(4, ago(hours=2), amount="400")
    )
    found = compare(text)
    assert (found.source, found.name, found.actor) == ("statement", "export.csv", "ann")
    assert counts(found) == (1, 1, 1, 1)
    assert [row[:3] for row in rows(found)] == [
        ("missing_here", "order_2", "pay_2"),
        ("missing_there", "order_3", "pay_3"),
        ("different", "order_4", "pay_4"),
    ]
    assert found.rows.get(order_id="order_2").theirs["raw"]["amount"] == "500.00"


def test_what_is_near_the_ends_of_a_statement_or_fresh_is_not_missed():
    for n, at in enumerate([ago(hours=23.5), ago(hours=2.5), ago(hours=12)], start=1):
        order(n, payment=f"pay_{n}", at=at)
    text = lines(booked(8, ago(hours=24), "failed"), booked(9, ago(hours=2), "failed"))
    assert [row[1] for row in rows(compare(text))] == ["order_3"]
    whole = compare(text, since=ago(hours=24), until=ago(hours=2))
    assert [row[1] for row in rows(whole)] == ["order_1", "order_2", "order_3"]
    order(7, payment="pay_7", at=ago(minutes=1))
    fresh = compare(lines(booked(6, ago(minutes=1))), since=ago(hours=1), until=ago(hours=-1))
    assert counts(fresh) == (0, 0, 0, 0)


def test_without_moments_nothing_is_missing_there():
    order(1, payment="pay_1")
    found = compare(HEADER + "pay_2,order_2,5,INR,failed\n")
    assert (counts(found), found.since, found.until) == ((0, 0, 0, 0), None, None)


def test_a_statement_that_does_not_tell_of_refunds_agrees_with_any():
    order(1, "refunded", "pay_1")
    order(2, "partially_refunded", "pay_2", refunded=200)
    text = HEADER + "pay_1,order_1,500,INR,captured\npay_2,order_2,500,INR,captured\n"
    assert counts(compare(text)) == (2, 0, 0, 0)


def test_a_row_of_a_statement_can_be_recorded():
    found = compare(HEADER + "pay_1,order_1,500,INR,captured\n")
    apply_row(found.rows.get().id, "ann", "the webhook was lost")
    row = Transaction.objects.get()
    assert (row.order_id, row.status, row.amount) == ("order_1", "paid", 50000)


def test_a_long_statement_is_compared_in_batches(monkeypatch):
    monkeypatch.setattr(comparison, "BATCH", 10)
    monkeypatch.setattr(reconcile, "BATCH", 10)
    calls = []
    for n in range(50):
        order(n, payment=f"pay_{n}", at=ago(hours=5))
    at = [booked(n, ago(hours=24 if n < 10 else 3)) for n in range(0, 100, 2)]
    found = compare(lines(*at), step=lambda: calls.append(1))
    assert counts(found) == (25, 25, 25, 0)
    assert len(calls) == 5


@pytest.mark.parametrize("text", ["9" * 17, "1." + "1" * 11, "+1", "1.", ".5", " 1", "1_000", ""])
def test_minor_units_refuses_what_is_no_plain_amount(text):
    with pytest.raises(ValueError, match="is no amount"):
        minor_units(text, "INR")


def test_minor_units_never_rounds():
    assert minor_units("9999999999999999.99", "INR") == 999999999999999999
    with pytest.raises(ValueError, match="more than the 2 decimals"):
        minor_units("9999999999999999.9900000001", "INR")
