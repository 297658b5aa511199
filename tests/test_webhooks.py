"""A webhook delivery: what is recorded, what it starts, and what the provider is answered."""

import hashlib
import hmac
import io
import json
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from payments import intake, ledger
from payments.models import Transaction, WebhookDelivery
from payments.providers.base import NotConfigured
from queues.models import Task

URL = "/webhooks/razorpay"
pytestmark = pytest.mark.django_db


def sign(body, secret="current-secret"):
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def body_of(event="payment.captured", order="order_1", refunded=None, **fields):
    payment = {
        "id": "pay_1",
        "entity": "payment",
        "amount": 50000,
        "currency": "INR",
        "order_id": order,
        "email": "buyer@example.com",
        "fee": 1000,
        "tax": 0,
        "notes": [],
    } | fields
    payload = {"payment": {"entity": payment}}
    if event == "order.paid":
        payload["order"] = {"entity": {"id": order, "entity": "order", "amount": 50000}}
    if event == "refund.processed":
        amount = payment["amount"] if refunded is None else refunded
        payload["refund"] = {"entity": {"id": "rfnd_1", "amount": amount, "payment_id": "pay_1"}}
        payment["amount_refunded"] = amount
    return json.dumps(
        {"entity": "event", "event": event, "contains": list(payload), "payload": payload}
    ).encode()


def post(body, event_id="evt_1", *, signature=None, client=None, **headers):
    known = {"X-Razorpay-Signature": signature if signature is not None else sign(body)}
    if event_id is not None:
        known["X-Razorpay-Event-Id"] = event_id
    return (client or Client()).post(
        URL, body, content_type="application/json", headers=known | headers
    )


def deliver(event="payment.captured", event_id="evt_1", **fields):
    return post(body_of(event, **fields), event_id)


def verdicts():
    return list(WebhookDelivery.objects.order_by("id").values_list("verdict", flat=True))


def nothing_happened():
    return not Transaction.objects.exists() and not Task.objects.exists()


def test_a_captured_payment_is_recorded_and_its_fulfilment_enqueued():
    response = deliver()
    assert (response.status_code, response.json()) == (200, {"verdict": "accepted"})
    delivery = WebhookDelivery.objects.get()
    row = Transaction.objects.get()
    task = Task.objects.get()
    assert (row.order_id, row.payment_id, row.email) == ("order_1", "pay_1", "buyer@example.com")
    assert (row.amount, row.currency, row.status) == (50000, "INR", "paid")
    assert (row.provider, row.task_id, row.fulfilled_at) == ("razorpay", task.id, None)
    assert (task.type, task.dedupe_key) == ("payments.fulfil", "razorpay:order_1")
    assert task.payload == {"transaction_id": str(row.id), "order_id": "order_1"}
    assert task.correlation_id == str(delivery.id)
    assert (delivery.transaction_id, delivery.task_id) == (row.id, task.id)
    assert (delivery.event_id, delivery.event_type) == ("evt_1", "payment.captured")
    assert (delivery.order_id, delivery.verdict) == ("order_1", "accepted")
    assert bytes(delivery.body) == body_of()
    assert delivery.headers["x-razorpay-event-id"] == "evt_1"
    assert "x-razorpay-signature" not in delivery.headers


@pytest.mark.parametrize("gap", [{"order": None}, {"order": ""}])
def test_a_payment_without_an_order_stands_for_it(gap):
    assert deliver(**gap).status_code == 200
    assert Transaction.objects.get().order_id == "pay_1"


@pytest.mark.parametrize("email", [None, "", "void@razorpay.com"])
def test_a_payment_without_an_address_is_recorded_without_one(email):
    assert deliver(email=email, notes={"a": "b"}).status_code == 200
    assert Transaction.objects.get().email is None


def test_a_replay_does_nothing_and_is_answered_as_the_first_was():
    deliver()
    again = deliver()
    assert (again.status_code, again.json()["verdict"]) == (200, "duplicate")
    assert verdicts() == ["accepted", "duplicate"]
    assert Transaction.objects.count() == Task.objects.count() == 1
    first, second = WebhookDelivery.objects.order_by("id")
    assert second.transaction_id == first.transaction_id


def test_replays_are_stored_a_hundred_times_at_most(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_PER_ORDER", 3)
    assert [deliver().status_code for _ in range(6)] == [200] * 6
    assert verdicts() == ["accepted"] + ["duplicate"] * 3


def test_replays_of_an_event_without_an_order_are_bounded_too(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_PER_ORDER", 2)
    body = b'{"event": "settlement.processed", "payload": {}}'
    for _ in range(5):
        assert post(body).status_code == 200
    assert verdicts() == ["accepted", "duplicate", "duplicate"]


def test_contradictions_of_an_event_without_an_order_are_bounded_too(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_PER_ORDER", 2)
    post(b'{"event": "settlement.processed", "payload": {}}')
    for _ in range(5):
        assert post(b'{"event": "payout.processed", "payload": {}}').status_code == 200
    assert verdicts() == ["accepted", "mismatch", "mismatch"]


def test_a_signed_body_under_a_new_event_id_is_still_a_replay(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_PER_ORDER", 2)
    answers = [post(body_of(), f"evt_{n}").json()["verdict"] for n in range(5)]
    assert answers == ["accepted"] + ["duplicate"] * 4
    assert verdicts() == ["accepted", "duplicate", "duplicate"]
    assert Task.objects.count() == 1


@pytest.mark.parametrize(
    "order", [("payment.captured", "order.paid"), ("order.paid", "payment.captured")]
)
def test_captured_and_order_paid_are_the_same_money(order):
    answers = [deliver(event, f"evt_{event}") for event in order]
    assert [answer.json()["verdict"] for answer in answers] == ["accepted", "accepted"]
    assert Transaction.objects.count() == Task.objects.count() == 1
    first, second = WebhookDelivery.objects.order_by("id")
    assert second.reason == "The order is paid already: nothing to do."
    assert (second.transaction_id, second.task_id) == (first.transaction_id, None)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount", 40000, "amount: recorded 50000, delivered 40000"),
        ("currency", "USD", "currency: recorded INR, delivered USD"),
        (
            "email",
            "other@example.com",
            "email: recorded buyer@example.com, delivered other@example.com",
        ),
    ],
)
@pytest.mark.parametrize("event_id", ["evt_1", "evt_2"])
def test_other_money_for_a_known_order_is_a_mismatch(field, value, reason, event_id):
    deliver()
    before = Transaction.objects.values().get()
    response = deliver("payment.captured", event_id, **{field: value})
    assert (response.status_code, response.json()["verdict"]) == (200, "mismatch")
    assert Transaction.objects.values().get() == before
    assert Task.objects.count() == 1
    second = WebhookDelivery.objects.get(verdict="mismatch")
    assert (second.reason, second.transaction_id) == (reason, before["id"])
    assert second.event_id == (None if event_id == "evt_1" else "evt_2")


def test_a_replay_of_a_mismatch_is_a_duplicate():
    deliver()
    answers = [deliver("order.paid", "evt_2", amount=1).json()["verdict"] for _ in range(2)]
    assert answers == ["mismatch", "duplicate"]


def test_an_event_id_used_again_for_another_order_is_flagged_and_moves_no_money():
    deliver()
    assert deliver(order="order_2").json()["verdict"] == "mismatch"
    assert Transaction.objects.get().order_id == "order_1"
    flagged = WebhookDelivery.objects.get(verdict="mismatch")
    assert "recorded payment.captured of order order_1" in flagged.reason
    assert "delivered payment.captured of order order_2" in flagged.reason


def test_an_address_in_other_case_or_unknown_before_is_no_mismatch():
    deliver("payment.authorized", "evt_1", email=None)
    assert deliver("payment.captured", "evt_2", email="Buyer@Example.com").status_code == 200
    assert deliver("order.paid", "evt_3", email="buyer@example.com").status_code == 200
    assert verdicts() == ["accepted"] * 3
    assert Transaction.objects.get().email == "Buyer@Example.com"


EVENTS = {
    "authorized": "payment.authorized",
    "paid": "payment.captured",
    "failed": "payment.failed",
    "refunded": "refund.processed",
}


@pytest.mark.parametrize(
    ("recorded", "delivered", "verdict", "then"),
    [
        ("created", "authorized", "accepted", "authorized"),
        ("created", "paid", "accepted", "paid"),
        ("created", "failed", "accepted", "failed"),
        ("created", "refunded", "accepted", "refunded"),
        ("authorized", "paid", "accepted", "paid"),
        ("authorized", "failed", "accepted", "failed"),
        ("authorized", "refunded", "accepted", "refunded"),
        ("authorized", "authorized", "accepted", "authorized"),
        ("failed", "authorized", "stale", "failed"),
        ("failed", "paid", "accepted", "paid"),
        ("failed", "refunded", "accepted", "refunded"),
        ("failed", "failed", "accepted", "failed"),
        ("paid", "authorized", "stale", "paid"),
        ("paid", "failed", "stale", "paid"),
        ("paid", "refunded", "accepted", "refunded"),
        ("refunded", "authorized", "stale", "refunded"),
        ("refunded", "paid", "stale", "refunded"),
        ("refunded", "failed", "stale", "refunded"),
        ("refunded", "refunded", "accepted", "refunded"),
    ],
)
def test_money_only_moves_forward(recorded, delivered, verdict, then):
    Transaction.objects.create(order_id="order_1", amount=50000, status=recorded)
    assert deliver(EVENTS[delivered]).json()["verdict"] == verdict
    row = Transaction.objects.get()
    assert row.status == then
    assert WebhookDelivery.objects.get().verdict == verdict
    became_paid = then == "paid" and recorded != "paid"
    assert Task.objects.count() == became_paid
    assert (row.task_id is not None) == became_paid


def test_paid_after_failed_keeps_the_payment_that_paid():
    deliver("payment.failed", "evt_1", id="pay_failed")
    deliver("payment.captured", "evt_2", id="pay_good")
    row = Transaction.objects.get()
    assert (row.status, row.payment_id, Task.objects.count()) == ("paid", "pay_good", 1)


def test_a_refund_before_the_payment_leaves_nothing_to_fulfil():
    deliver("refund.processed", "evt_1")
    assert deliver("payment.captured", "evt_2").json()["verdict"] == "stale"
    assert Transaction.objects.get().status == "refunded"
    assert not Task.objects.exists()


def test_a_part_refunded_stays_paid_until_all_is():
    deliver("payment.captured", "evt_1")
    deliver("refund.processed", "evt_2", refunded=20000)
    row = Transaction.objects.get()
    assert row.status == "paid"
    part = WebhookDelivery.objects.get(event_id="evt_2")
    assert (part.verdict, part.transaction_id) == ("accepted", row.id)
    assert part.reason == "A part of the money was refunded; the order stays paid."
    deliver("refund.processed", "evt_3", refunded=50000)
    assert Transaction.objects.get().status == "refunded"


def test_an_event_of_another_type_is_recorded_and_changes_nothing():
    deliver()
    response = deliver("payment.dispute.created", "evt_2", amount="strange")
    assert (response.status_code, response.json()["verdict"]) == (200, "accepted")
    second = WebhookDelivery.objects.get(event_id="evt_2")
    assert (second.event_type, second.order_id) == ("payment.dispute.created", "order_1")
    assert second.transaction_id == Transaction.objects.get().id
    assert Transaction.objects.get().status == "paid"
    assert Task.objects.count() == 1


@pytest.mark.parametrize("secret", ["current-secret", "previous-secret"])
def test_either_secret_is_good_during_rotation(secret):
    body = body_of()
    assert post(body, signature=sign(body, secret)).status_code == 200
    assert Transaction.objects.get().status == "paid"


def test_the_case_of_the_signature_does_not_matter():
    assert post(body_of(), signature=sign(body_of()).upper()).status_code == 200


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("", "missing"),
        ("0" * 64, "no secret of ours"),
        (sign(body_of(), ""), "no secret of ours"),
        (sign(b"{}"), "no secret of ours"),
        (sign(body_of())[:-1], "64 hexadecimal digits"),
        (sign(body_of()) + "\n", "64 hexadecimal digits"),
        ("sig\u00f1ature" + "\u00e9" * 55, "64 hexadecimal digits"),
        ("\u0661" * 64, "64 hexadecimal digits"),
    ],
)
def test_a_bad_signature_is_refused_and_recorded(signature, reason):
    response = post(body_of(), signature=signature)
    assert response.status_code == 401
    delivery = WebhookDelivery.objects.get()
    assert (delivery.verdict, delivery.event_id) == ("rejected", None)
    assert reason in delivery.reason
    assert nothing_happened()


def test_a_missing_signature_is_refused():
    response = Client().post(URL, body_of(), content_type="application/json")
    assert response.status_code == 401
    assert verdicts() == ["rejected"]


@pytest.mark.parametrize(
    ("event_id", "reason"),
    [
        (None, "missing"),
        ("", "missing"),
        ("e" * 201, "longer than 200"),
        ("evt\x00", "not plain text"),
        ("evt\u00e9", "not plain text"),
    ],
)
def test_an_event_needs_a_usable_id(event_id, reason):
    response = post(body_of(), event_id)
    assert response.status_code == 400
    assert reason in WebhookDelivery.objects.get().reason
    assert nothing_happened()


BIG = 2**53
BAD_FIELDS = [
    ({"amount": -1}, "amount is negative."),
    ({"amount": 500.5}, "amount is a fraction, not a whole number of minor units."),
    ({"amount": 50000.0}, "amount is a fraction, not a whole number of minor units."),
    ({"amount": True}, "amount is a boolean, not a whole number of minor units."),
    ({"amount": "50000"}, "amount is a text, not a whole number of minor units."),
    ({"amount": None}, "amount is missing, not a whole number of minor units."),
    ({"amount": BIG + 1}, "amount is above 2**53."),
    ({"currency": "inr"}, "currency is not a currency code of three capital letters."),
    ({"currency": "INR\n"}, "currency is not a currency code of three capital letters."),
    ({"currency": None}, "currency is not a currency code of three capital letters."),
    ({"order": "order\x00"}, "order_id holds a character that cannot be printed."),
    ({"order": 7}, "order_id is a number, not a text."),
    ({"order": "o" * 101}, "order_id is 101 characters long; the most is 100."),
    ({"id": None}, "id is missing, not a text."),
    ({"id": ["pay_1"]}, "id is a list, not a text."),
    ({"email": "a\x00@b.c"}, "email holds a character that cannot be printed."),
    ({"email": "a@b.c\nBcc: x@y.z"}, "email holds a character that cannot be printed."),
    ({"email": "\ud800@b.c"}, "email holds a character that cannot be printed."),
    ({"email": {}}, "email is an object, not a text."),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_FIELDS)
def test_a_field_that_is_not_as_documented_is_refused(fields, reason):
    response = deliver(**fields)
    assert response.status_code == 400
    delivery = WebhookDelivery.objects.get()
    assert (delivery.verdict, delivery.reason) == ("rejected", reason)
    assert nothing_happened()


def test_the_largest_amount_is_taken():
    assert deliver(amount=BIG).status_code == 200
    assert Transaction.objects.get().amount == BIG


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        body_of()[:-20],
        b"[]",
        b"null",
        b'"payment.captured"',
        b"\xff\xfe{}",
        b'{"event": "payment.captured\x00"}',
        b'{"event": "payment.captured\\u0000", "payload": {}}',
        b'{"event": "payment.captured", "payload": NaN}',
        b'{"event": "payment.captured"}',
        b'{"event": "payment.captured", "payload": []}',
        b'{"event": "payment.captured", "payload": {"payment": []}}',
        b'{"event": "payment.captured", "payload": {"payment": {"entity": "pay_1"}}}',
        b'{"event": 7, "payload": {}}',
        b'{"payload": {}}',
        b'{"event": "e", "deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"event": "e", "n": ' + b"9" * 5000 + b"}",
        b"amount=1&currency=INR",
        body_of("refund.processed").replace(b'"refund"', b'"reversal"'),
        body_of("refund.processed", refunded=-1),
        body_of("order.paid").replace(b'"id": "order_1"', b'"id": "order_2"'),
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_a_signed_body_that_makes_no_sense_is_refused(body):
    response = post(body)
    assert (response.status_code, response.json()["verdict"]) == (400, "rejected")
    delivery = WebhookDelivery.objects.get()
    assert delivery.reason
    assert bytes(delivery.body) == body[: 64 * 1024]
    assert nothing_happened()


def test_a_form_content_type_is_no_reason_to_refuse_json():
    body = body_of()
    headers = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": "evt_1"}
    response = Client().generic(
        "POST", URL, body, content_type="application/x-www-form-urlencoded", headers=headers
    )
    assert response.status_code == 200
    assert bytes(WebhookDelivery.objects.get().body) == body


def test_a_body_over_a_mebibyte_is_refused_without_a_row():
    response = post(b"x" * 5_000_000)
    assert response.status_code == 413
    assert "error" in response.json()
    assert not WebhookDelivery.objects.exists()


def chunked(body):
    # As gunicorn hands a chunked body over: without a length.
    stream = io.BytesIO(body)
    environ: dict[str, Any] = {
        "CONTENT_LENGTH": "",
        "HTTP_X_RAZORPAY_SIGNATURE": sign(body),
        "HTTP_X_RAZORPAY_EVENT_ID": "evt_1",
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
    }
    return Client().post(URL, **environ), stream


def test_a_chunked_body_is_read_as_far_as_the_limit():
    response, _ = chunked(body_of())
    assert response.status_code == 200
    assert bytes(WebhookDelivery.objects.get().body) == body_of()
    response, stream = chunked(b"x" * 5_000_000)
    assert response.status_code == 413
    assert stream.tell() == 1024 * 1024 + 1
    assert WebhookDelivery.objects.count() == 1


def test_rejected_deliveries_cannot_fill_the_disk(monkeypatch):
    monkeypatch.setattr(intake, "REJECTED_PER_HOUR", 4)
    monkeypatch.setattr(intake, "UNSIGNED_PER_HOUR", 3)
    for _ in range(6):
        assert post(body_of(), signature="0" * 64).status_code == 401
    assert verdicts() == ["rejected"] * 3
    # A signed one that we cannot read may be money, so strangers cannot take its place.
    for _ in range(3):
        assert post(b"not json").status_code == 400
    assert verdicts() == ["rejected"] * 4


def test_an_hour_later_rejected_deliveries_are_stored_again(monkeypatch, sql):
    monkeypatch.setattr(intake, "REJECTED_PER_HOUR", 1)
    post(b"x", signature="bad")
    sql("UPDATE webhook_deliveries SET received_at = received_at - interval '61 minutes'")
    post(b"x", signature="bad")
    assert verdicts() == ["rejected"] * 2


def test_without_a_secret_nothing_is_accepted_and_nobody_blamed(settings):
    for secrets in ([], ["", "  "]):
        settings.RAZORPAY_WEBHOOK_SECRETS = secrets
        response = post(body_of(), signature=sign(body_of(), ""))
        assert response.status_code == 503
        assert response["Retry-After"] == "30"
        assert "error" in response.json()
    with pytest.raises(NotConfigured, match="RAZORPAY_WEBHOOK_SECRETS is empty"):
        intake.receive("razorpay", b"", {})
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_other_methods_are_refused(method):
    response = getattr(Client(), method)(URL)
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert response["Content-Type"] == "application/json"


def test_an_unknown_provider_is_not_found():
    response = Client().post("/webhooks/paypal", b"{}", content_type="application/json")
    assert response.status_code == 404
    assert "paypal" in response.json()["error"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_trailing_slash_is_not_found_and_not_redirected(method):
    assert getattr(Client(), method)(URL + "/").status_code == 404


def test_no_csrf_token_is_asked():
    assert post(body_of(), client=Client(enforce_csrf_checks=True)).status_code == 200


WHAT_POSTGRESQL_SAYS = "the server went away\nDETAIL: the row of buyer@example.com"


def crash(*args, **kwargs):
    raise OperationalError(WHAT_POSTGRESQL_SAYS)


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (intake, "_insert"),
        (ledger, "_insert"),
        (ledger, "enqueue"),
        (ledger, "apply"),
        (intake, "Receipt"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_crash_at_any_step_leaves_nothing_and_asks_for_another_delivery(
    module, step, monkeypatch, caplog
):
    with monkeypatch.context() as broken:
        broken.setattr(module, step, crash)
        response = deliver()
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert not WebhookDelivery.objects.exists()
    assert nothing_happened()
    assert "buyer@example.com" not in response.content.decode() + caplog.text
    assert deliver().status_code == 200
    assert Transaction.objects.count() == Task.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_lock_held_by_someone_else_ends_in_503_not_in_waiting(monkeypatch, at_once, sql):
    monkeypatch.setattr(intake, "LOCK_TIMEOUT", "50ms")
    deliver("payment.authorized", "evt_1")
    sql("BEGIN")
    sql("SELECT FROM transactions FOR UPDATE")
    [response] = at_once(lambda: deliver("payment.captured", "evt_2"))
    sql("ROLLBACK")
    assert response.status_code == 503
    assert Transaction.objects.get().status == "authorized"
    assert deliver("payment.captured", "evt_2").json()["verdict"] == "accepted"


@pytest.mark.django_db(transaction=True)
def test_a_hundred_identical_deliveries_at_once_are_one_payment(at_once, monkeypatch):
    monkeypatch.setattr(intake, "LOCK_TIMEOUT", "60s")
    monkeypatch.setattr(intake, "REPEATS_PER_ORDER", 50)
    answers = at_once(*[deliver] * 100)
    assert {answer.status_code for answer in answers} == {200}
    told = sorted(answer.json()["verdict"] for answer in answers)
    assert told == ["accepted"] + ["duplicate"] * 99
    assert sorted(verdicts()) == ["accepted"] + ["duplicate"] * 50
    assert Transaction.objects.count() == Task.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_events_of_an_order_at_once_end_in_one_fulfilment(at_once, monkeypatch):
    monkeypatch.setattr(intake, "LOCK_TIMEOUT", "60s")
    kinds = ["payment.failed", "payment.authorized", "payment.captured", "order.paid"]
    calls = [
        lambda kind=kind, order=order: deliver(kind, f"{order}-{kind}", order=order)
        for order in ("order_1", "order_2", "order_3")
        for kind in kinds
    ]
    assert {answer.status_code for answer in at_once(*calls * 3)} == {200}
    assert list(Transaction.objects.values_list("status", flat=True)) == ["paid"] * 3
    assert Task.objects.count() == 3
    assert WebhookDelivery.objects.exclude(verdict="duplicate").count() == 12


@pytest.mark.django_db(transaction=True)
def test_a_burst_of_rejected_deliveries_is_bounded_exactly(at_once, monkeypatch):
    monkeypatch.setattr(intake, "UNSIGNED_PER_HOUR", 5)
    at_once(*[lambda: post(body_of(), signature="0" * 64)] * 20)
    assert verdicts() == ["rejected"] * 5


def test_a_delivery_takes_few_statements(django_assert_num_queries):
    # A savepoint for the test's transaction makes two of them; the enqueue has a cursor of its own.
    with django_assert_num_queries(7):
        deliver()
