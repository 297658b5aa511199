"""What a payment starts: fulfilment, the receipt, and the pages that show it."""

import json
import smtplib
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core import mail
from django.urls import reverse

from payments import handlers
from payments.admin import readable_body
from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount
from payments.providers import base
from payments.providers.base import Event, NotConfigured, Provider, UnknownProvider
from queues import claims, registry
from queues.enqueue import enqueue
from queues.models import Task
from queues.retry import Fail, LostLease
from queues.worker.context import TaskContext

pytestmark = pytest.mark.django_db


@dataclass
class Context:
    """What a handler sees of its task, without a task."""

    payload: Any
    id: UUID = field(default_factory=uuid4)
    correlation_id: str = "delivery"
    tenant_id: str | None = None
    completed: Any = None
    lost: bool = False

    def check(self):
        if self.lost:
            raise LostLease("cancelled")

    def complete(self, result=None):
        self.check()
        self.completed = result


@pytest.fixture
def paid(db):
    return Transaction.objects.create(
        order_id="order_1", payment_id="pay_1", email="a@b.example", amount=123450, status="paid"
    )


def context(row, **fields):
    return Context({"transaction_id": str(row.id)}, **fields)


def test_both_tasks_are_registered():
    assert {"payments.fulfil", "payments.send_receipt"} <= set(registry.known_types())


def test_fulfilment_marks_the_order_and_enqueues_its_receipt(paid):
    ctx = context(paid)
    result = handlers.fulfil(ctx)
    receipt = Task.objects.get()
    paid.refresh_from_db()
    assert paid.fulfilled_at is not None
    assert (receipt.type, receipt.correlation_id) == ("payments.send_receipt", "delivery")
    assert receipt.payload == {"transaction_id": str(paid.id)}
    assert result == ctx.completed == {"fulfilled": True, "receipt_task_id": str(receipt.id)}


def test_fulfilment_run_twice_happens_once(paid):
    handlers.fulfil(context(paid))
    paid.refresh_from_db()
    first = paid.fulfilled_at
    assert handlers.fulfil(context(paid))["fulfilled"] is False
    paid.refresh_from_db()
    assert paid.fulfilled_at == first
    assert Task.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_fulfilments_at_once_enqueue_one_receipt(paid, at_once):
    results = at_once(*[lambda: handlers.fulfil(context(paid))] * 4)
    assert sorted(result["fulfilled"] for result in results) == [False, False, False, True]
    assert Task.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_fulfilment_whose_lease_is_lost_leaves_nothing(paid):
    with pytest.raises(LostLease):
        handlers.fulfil(context(paid, lost=True))
    paid.refresh_from_db()
    assert paid.fulfilled_at is None
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_fulfilment_and_the_completion_of_its_task_commit_as_one(paid, make_worker):
    make_worker()
    enqueue("payments.fulfil", {"transaction_id": str(paid.id)}, correlation_id="delivery")
    [claimed] = claims.claim_tasks("w1", None, 1)
    handlers.fulfil(TaskContext(claimed))
    task = Task.objects.get(id=claimed.id)
    receipt = Task.objects.exclude(id=claimed.id).get()
    done = {"fulfilled": True, "receipt_task_id": str(receipt.id)}
    assert (task.status, task.result) == ("completed", done)
    assert (receipt.type, receipt.correlation_id) == ("payments.send_receipt", "delivery")
    [claimed] = claims.claim_tasks("w1", None, 1)
    assert handlers.send_receipt(TaskContext(claimed))["sent"] is True
    assert len(mail.outbox) == 1


@pytest.mark.parametrize("status", ["created", "authorized", "failed", "refunded"])
def test_only_a_paid_order_is_fulfilled(paid, status):
    Transaction.objects.update(status=status)
    with pytest.raises(Fail, match=f"is {status}, not paid"):
        handlers.fulfil(context(paid))
    paid.refresh_from_db()
    assert paid.fulfilled_at is None


@pytest.mark.parametrize("payload", [None, [], {}, {"transaction_id": "x"}, {"transaction_id": 1}])
@pytest.mark.parametrize("handler", [handlers.fulfil, handlers.send_receipt])
def test_a_payload_without_a_transaction_fails_for_good(handler, payload):
    with pytest.raises(Fail, match="transaction_id"):
        handler(Context(payload))


@pytest.mark.parametrize("handler", [handlers.fulfil, handlers.send_receipt])
def test_an_unknown_transaction_fails_for_good(handler):
    with pytest.raises(Fail, match="There is no transaction"):
        handler(Context({"transaction_id": str(uuid4())}))


def test_a_receipt_says_what_was_paid(paid, settings):
    settings.DEFAULT_FROM_EMAIL = "Shop <ops@shop.example>"
    ctx = context(paid)
    message_id = f"<{ctx.id}@shop.example>"
    assert handlers.send_receipt(ctx) == {"sent": True, "message_id": message_id}
    [message] = mail.outbox
    assert message.to == ["a@b.example"]
    assert message.subject == "Receipt for order order_1: INR 1,234.50"
    assert message.message()["Message-ID"] == message_id
    assert message.message().get_content_type() == "text/plain"
    for line in ("Order:    order_1\n", "Payment:  pay_1\n", "Amount:   INR 1,234.50\n"):
        assert line in message.body
    assert "refunded" not in message.body


def test_a_repeated_receipt_is_recognisable(paid):
    ctx = context(paid)
    assert handlers.send_receipt(ctx) == handlers.send_receipt(ctx)
    assert len({message.message()["Message-ID"] for message in mail.outbox}) == 1


@pytest.mark.parametrize("email", [None, ""])
def test_no_address_is_no_failure(paid, email):
    Transaction.objects.update(email=email)
    assert handlers.send_receipt(context(paid)) == {
        "sent": False,
        "reason": "The transaction has no e-mail address.",
    }
    assert mail.outbox == []


@pytest.mark.parametrize("email", ["nobody", "a@b.example\nBcc: c@d.example"])
def test_an_impossible_address_fails_for_good(paid, email):
    Transaction.objects.update(email=email)
    with pytest.raises(Fail, match="order_1"):
        handlers.send_receipt(context(paid))
    assert mail.outbox == []


def test_an_order_id_with_a_line_break_cannot_forge_a_header(paid):
    Transaction.objects.update(order_id="order_1\nBcc: c@d.example")
    handlers.send_receipt(context(paid))
    assert mail.outbox[0].message()["Bcc"] is None
    assert mail.outbox[0].message()["Subject"].startswith("Receipt for order order_1 Bcc:")


def test_an_unpaid_order_gets_no_receipt(paid):
    Transaction.objects.update(status="failed")
    with pytest.raises(Fail, match="no payment"):
        handlers.send_receipt(context(paid))


def test_a_cancelled_receipt_is_not_sent(paid):
    with pytest.raises(LostLease):
        handlers.send_receipt(context(paid, lost=True))
    assert mail.outbox == []


@pytest.mark.parametrize(("code", "error"), [(550, Fail), (451, smtplib.SMTPRecipientsRefused)])
def test_only_a_lasting_refusal_fails_for_good(paid, code, error, monkeypatch):
    def refuse(*args, **kwargs):
        raise smtplib.SMTPRecipientsRefused({"a@b.example": (code, b"no")})

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
    with pytest.raises(error):
        handlers.send_receipt(context(paid))


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (0, "INR", "INR 0.00"),
        (5, "INR", "INR 0.05"),
        (123450, "USD", "USD 1,234.50"),
        (500, "JPY", "JPY 500"),
        (1234567, "KWD", "KWD 1,234.567"),
        (2**53, "INR", "INR 90,071,992,547,409.92"),
        (-105, "EUR", "EUR -1.05"),
    ],
)
def test_amounts_follow_their_currency(amount, currency, text):
    assert format_amount(amount, currency) == text


class Coupons(Provider):
    """A second provider: one class and one line of settings."""

    name = "coupons"

    def verify(self, body, headers, secrets):
        return Event(
            event_id=body.decode(),
            event_type="used",
            order_id="c1",
            amount=1,
            currency="INR",
            status="paid",
        )


def test_a_second_provider_is_a_class_and_a_setting(settings, client):
    settings.PAYMENT_PROVIDERS = {"coupons": f"{__name__}.Coupons"}
    settings.COUPONS_WEBHOOK_SECRETS = ["s"]
    assert client.post("/webhooks/coupons", b"e1", content_type="text/plain").status_code == 200
    row = Transaction.objects.get()
    assert (row.provider, row.order_id, row.status) == ("coupons", "c1", "paid")
    assert Task.objects.get().dedupe_key == "coupons:c1"
    assert client.post("/webhooks/razorpay").status_code == 404


def test_blank_secrets_are_no_secrets(settings):
    settings.RAZORPAY_WEBHOOK_SECRETS = ["", " new ", "old"]
    assert base.webhook_secrets("razorpay") == ["new", "old"]
    settings.RAZORPAY_WEBHOOK_SECRETS = [" "]
    with pytest.raises(NotConfigured):
        base.webhook_secrets("razorpay")
    with pytest.raises(UnknownProvider):
        base.load("nobody")


@pytest.fixture
def delivery(paid):
    body = {"event": "payment.captured", "card": {"last4": "4242"}, "notes": [{"API_KEY": "k3y"}]}
    return WebhookDelivery.objects.create(
        provider="razorpay",
        event_id="evt_1",
        order_id="order_1",
        verdict="accepted",
        body=json.dumps(body).encode(),
    )


@pytest.mark.parametrize("model", ["transaction", "webhookdelivery"])
def test_the_admin_shows_payments_and_changes_nothing(model, paid, delivery, admin_client):
    row = paid if model == "transaction" else delivery
    page = admin_client.get(reverse(f"admin:payments_{model}_changelist"), {"q": "order_1"})
    assert page.status_code == 200
    assert "order_1" in page.content.decode()
    url = reverse(f"admin:payments_{model}_change", args=[row.pk])
    page = admin_client.get(url).content.decode()
    assert "order_1" in page
    assert 'name="_save"' not in page
    assert "4242" not in page
    assert "k3y" not in page
    before = type(row).objects.values().get()
    assert admin_client.post(url, {"amount": 1, "status": "refunded"}).status_code == 403
    assert admin_client.get(reverse(f"admin:payments_{model}_add")).status_code == 403
    delete = reverse(f"admin:payments_{model}_delete", args=[row.pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    assert type(row).objects.values().get() == before


def test_the_admin_lists_amounts_as_money(paid, admin_client):
    page = admin_client.get(reverse("admin:payments_transaction_changelist"))
    assert "INR 1,234.50" in page.content.decode()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"token": "t", "amount": 1}', '{\n  "token": "[redacted]",\n  "amount": 1\n}'),
        (b"not json \xff", "not json \ufffd"),
        (b"[" * 100_000, "[" * 100_000),
        (b"", ""),
    ],
    ids=["json", "bytes", "deep", "empty"],
)
def test_a_body_is_shown_as_text_without_its_secrets(body, text):
    assert readable_body(body) == text


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_project_routes_webhooks_without_a_redirect(method, client):
    assert getattr(client, method)("/webhooks/razorpay").status_code in (401, 405)
    assert getattr(client, method)("/webhooks/razorpay/").status_code == 404
