"""A webhook delivery: what is recorded, what it starts, and what the provider is answered."""

import pytest
from django.db import OperationalError
from django.test import Client

from payments import intake
from payments.models import Transaction, WebhookDelivery
from queues.database import query
from queues.models import Task
from tests.payment_events import (
    BIG,
    RAZORPAY_URL,
    body_of,
    deliver,
    nothing_happened,
    post,
    sign,
    verdict,
    verdicts,
)

pytestmark = pytest.mark.django_db


def test_a_captured_payment_is_recorded_and_its_fulfilment_enqueued():
    response = deliver()
    assert (response.status_code, response.json()["verdict"]) == (200, "accepted")
    delivery = WebhookDelivery.objects.get()
    row = Transaction.objects.get()
    task = Task.objects.get()
    assert (row.order_id, row.payment_id, row.email) == ("order_1", "pay_1", "buyer@example.com")
    assert (row.amount, row.currency, row.status) == (50000, "INR", "paid")
    assert (row.provider, row.task_id, row.fulfilled_at) == ("razorpay", task.id, None)
    assert row.paid_at is not None
    assert (task.type, task.queue_id, task.dedupe_key) == (
        "payments.fulfil",
        "payments",
        str(row.id),
    )
    assert task.payload == {"transaction_id": str(row.id), "order_id": "order_1"}
    assert task.correlation_id == str(delivery.id)
    assert (delivery.transaction_id, delivery.task_id) == (row.id, task.id)
    assert (delivery.event_id, delivery.event_type) == ("evt_1", "payment.captured")
    assert (delivery.order_id, delivery.payment_id) == ("order_1", "pay_1")
    assert (delivery.verdict, delivery.source) == ("accepted", "webhook")
    assert (delivery.claim["status"], delivery.claim["amount"]) == ("paid", 50000)
    assert bytes(delivery.body) == body_of()


def test_headers_that_matter_are_kept_and_the_time_it_took():
    post(body_of(), **{"User-Agent": "Razorpay-Webhook/v1" + "x" * 500, "Cookie": "session=1"})
    delivery = WebhookDelivery.objects.get()
    assert sorted(delivery.headers) == ["content-type", "user-agent", "x-razorpay-event-id"]
    assert delivery.headers["x-razorpay-event-id"] == "evt_1"
    assert len(delivery.headers["user-agent"]) == 200
    assert 0 < delivery.took < 60


@pytest.mark.parametrize("gap", [{"order": None}, {"order": ""}])
def test_a_payment_without_an_order_stands_for_it(gap):
    assert deliver(**gap).status_code == 200
    assert Transaction.objects.get().order_id == "pay_1"


@pytest.mark.parametrize(
    "email", [None, "", "void@razorpay.com", "a\u200b@b.c", "a@b.c\nBcc: x@y.z", "\ud800@b.c", {}]
)
def test_a_payment_without_an_address_is_recorded_without_one(email):
    assert deliver(email=email, notes={"a": "b"}).status_code == 200
    assert Transaction.objects.get().email is None


def test_the_largest_amount_is_taken():
    assert deliver(amount=BIG).status_code == 200
    assert Transaction.objects.get().amount == BIG


def test_a_replay_does_nothing_and_is_answered_as_the_first_was():
    deliver()
    again = deliver()
    assert (again.status_code, again.json()["verdict"]) == (200, "duplicate")
    assert verdicts() == ["accepted", "duplicate"]
    assert Transaction.objects.count() == Task.objects.count() == 1
    first, second = WebhookDelivery.objects.order_by("id")
    assert second.transaction_id == first.transaction_id


def test_a_replay_after_a_year_is_still_a_replay(sql):
    deliver()
    sql("UPDATE webhook_deliveries SET received_at = received_at - interval '366 days'")
    sql(
        "UPDATE transactions SET fulfilled_at = paid_at, created_at = created_at - interval '1 year'"
    )
    sql("DELETE FROM tasks")
    assert verdict(deliver()) == "duplicate"
    assert not Task.objects.exists()


def test_a_replay_after_its_delivery_was_deleted_moves_no_money(sql):
    deliver()
    before = Transaction.objects.values().get()
    sql("DELETE FROM webhook_deliveries")
    assert verdict(deliver()) == "accepted"
    again = WebhookDelivery.objects.get()
    assert again.reason == "The order is paid already: nothing to do."
    assert Transaction.objects.values().get() == before
    assert Task.objects.count() == 1


def test_replays_are_stored_a_hundred_times_at_most(monkeypatch):
    assert intake.REPEATS_KEPT == 100
    monkeypatch.setattr(intake, "REPEATS_KEPT", 3)
    assert [deliver().status_code for _ in range(6)] == [200] * 6
    assert verdicts() == ["accepted"] + ["duplicate"] * 3


def test_replays_of_an_event_without_an_order_are_bounded_too(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_KEPT", 2)
    body = b'{"event": "settlement.processed", "payload": {}}'
    for _ in range(5):
        assert post(body).status_code == 200
    assert verdicts() == ["accepted", "duplicate", "duplicate"]


def test_contradictions_of_an_event_without_an_order_are_bounded_too(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_KEPT", 2)
    post(b'{"event": "settlement.processed", "payload": {}}')
    for _ in range(5):
        assert post(b'{"event": "payout.processed", "payload": {}}').status_code == 200
    assert verdicts() == ["accepted", "mismatch", "mismatch"]


def test_a_signed_body_under_a_new_event_id_is_still_a_replay(monkeypatch):
    monkeypatch.setattr(intake, "REPEATS_KEPT", 2)
    answers = [verdict(post(body_of(), f"evt_{n}")) for n in range(5)]
    assert answers == ["accepted"] + ["duplicate"] * 4
    assert verdicts() == ["accepted", "duplicate", "duplicate"]
    assert Task.objects.count() == 1


@pytest.mark.parametrize(
    "order", [("payment.captured", "order.paid"), ("order.paid", "payment.captured")]
)
def test_captured_and_order_paid_are_the_same_money(order):
    assert [verdict(deliver(event, f"evt_{event}")) for event in order] == ["accepted"] * 2
    assert Transaction.objects.count() == Task.objects.count() == 1
    first, second = WebhookDelivery.objects.order_by("id")
    assert second.reason == "The order is paid already: nothing to do."
    assert (second.transaction_id, second.task_id) == (first.transaction_id, None)


def test_an_event_of_another_type_is_recorded_and_changes_nothing():
    deliver()
    response = deliver("payment.dispute.created", "evt_2", amount="strange")
    assert response.json() == {"verdict": "accepted"}
    second = WebhookDelivery.objects.get(event_id="evt_2")
    assert second.reason == "Events of this type change no transaction."
    assert (second.event_type, second.order_id) == ("payment.dispute.created", "order_1")
    assert second.transaction_id == Transaction.objects.get().id
    assert Transaction.objects.get().status == "paid"
    assert Task.objects.count() == 1


def test_a_delivery_is_one_statement(django_assert_num_queries, monkeypatch):
    asked = []

    def counted(sql, params):
        asked.append(sql)
        return query(sql, params)

    monkeypatch.setattr(intake, "query", counted)
    with django_assert_num_queries(0):
        deliver()
    assert len(asked) == 1
    assert Task.objects.exists()


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_other_methods_are_refused(method):
    response = getattr(Client(), method)(RAZORPAY_URL)
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert response["Content-Type"] == "application/json"


def test_an_unknown_provider_is_not_found():
    response = Client().post("/webhooks/paypal", b"{}", content_type="application/json")
    assert response.status_code == 404
    assert "paypal" in response.json()["error"]


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("path", [RAZORPAY_URL, "/payments/verify", "/payments/orders"])
def test_a_trailing_slash_is_not_found_and_not_redirected(method, path):
    assert getattr(Client(), method)(path + "/").status_code == 404


def test_no_csrf_token_is_asked():
    assert post(body_of(), client=Client(enforce_csrf_checks=True)).status_code == 200


WHAT_POSTGRESQL_SAYS = "the server went away\nDETAIL: the row of buyer@example.com"
STEPS = {
    "the delivery's row": ("INSERT", "webhook_deliveries"),
    "the order's row": ("INSERT", "transactions"),
    "the task": ("INSERT", "tasks"),
    "the task's id in the order's row": ("UPDATE", "transactions"),
    "the verdict": ("UPDATE", "webhook_deliveries"),
}


@pytest.fixture
def mend(transactional_db, sql):
    sql(
        "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'the server went away' USING DETAIL = 'the row of buyer@example.com';"
        " END $$"
    )
    yield lambda: sql("DROP FUNCTION IF EXISTS crash() CASCADE")
    sql("DROP FUNCTION IF EXISTS crash() CASCADE")


@pytest.mark.parametrize(("verb", "table"), STEPS.values(), ids=STEPS)
def test_a_crash_at_any_step_leaves_nothing_and_asks_for_another_delivery(
    verb, table, mend, sql, caplog
):
    sql(f"CREATE TRIGGER crash BEFORE {verb} ON {table} FOR EACH ROW EXECUTE FUNCTION crash()")
    response = deliver()
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert not WebhookDelivery.objects.exists()
    assert nothing_happened()
    assert "buyer@example.com" not in response.content.decode() + caplog.text
    mend()
    assert verdict(deliver()) == "accepted"
    assert Transaction.objects.count() == Task.objects.count() == 1


def test_a_fulfilment_that_cannot_be_enqueued_leaves_nothing_recorded(transactional_db, sql):
    sql("DELETE FROM queues WHERE name = 'payments'")
    try:
        assert deliver().status_code == 503
        assert not WebhookDelivery.objects.exists()
        assert nothing_happened()
    finally:
        sql("INSERT INTO queues (name) VALUES ('payments')")
    assert verdict(deliver()) == "accepted"
    assert Task.objects.get().type == "payments.fulfil"


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_is_lost_after_the_commit_is_a_duplicate_next_time(monkeypatch, caplog):
    def crash(*args):
        raise OperationalError(WHAT_POSTGRESQL_SAYS)

    with monkeypatch.context() as broken:
        broken.setattr(intake, "_logged", crash)
        response = deliver()
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert "buyer@example.com" not in response.content.decode() + caplog.text
    assert verdict(deliver()) == "duplicate"
    assert verdicts() == ["accepted", "duplicate"]
    assert Task.objects.count() == 1


def test_a_form_content_type_is_no_reason_to_refuse_json():
    body = body_of()
    headers = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": "evt_1"}
    response = Client().generic(
        "POST",
        RAZORPAY_URL,
        body,
        content_type="application/x-www-form-urlencoded",
        headers=headers,
    )
    assert response.status_code == 200
    assert bytes(WebhookDelivery.objects.get().body) == body
