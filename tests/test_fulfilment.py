"""What a payment starts: its fulfilment, once, and the receipt."""

import smtplib
import traceback
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import Group
from django.core import mail

from payments import handlers
from payments.handlers import MailRefused
from payments.ledger import expect_order
from payments.models import Fulfilment, Transaction, WebhookDelivery
from queues import claims, registry
from queues.enqueue import enqueue
from queues.models import Task
from queues.retry import Fail, LostLease
from queues.worker.context import TaskContext
from tests.payment_events import checkout, deliver, deliver_stripe, intent

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
    assert (receipt.queue_id, receipt.dedupe_key) == ("payments", str(paid.id))
    assert receipt.payload == {"transaction_id": str(paid.id)}
    assert result == ctx.completed == {"fulfilled": True, "receipt_task_id": str(receipt.id)}
    record = Fulfilment.objects.get()
    assert (record.order_id, record.transaction_id) == ("order_1", paid.id)
    assert (record.task_id, record.detail) == (ctx.id, {"receipt_task_id": str(receipt.id)})


def test_fulfilment_run_twice_happens_once(paid):
    handlers.fulfil(context(paid))
    paid.refresh_from_db()
    first = paid.fulfilled_at
    assert handlers.fulfil(context(paid))["fulfilled"] is False
    paid.refresh_from_db()
    assert paid.fulfilled_at == first
    assert Task.objects.count() == Fulfilment.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_fulfilments_at_once_enqueue_one_receipt(paid, at_once):
    results = at_once(*[lambda: handlers.fulfil(context(paid))] * 4)
    assert sorted(result["fulfilled"] for result in results) == [False, False, False, True]
    assert Task.objects.count() == Fulfilment.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_fulfilment_whose_lease_is_lost_leaves_nothing(paid):
    with pytest.raises(LostLease):
        handlers.fulfil(context(paid, lost=True))
    paid.refresh_from_db()
    assert paid.fulfilled_at is None
    assert not Task.objects.exists()
    assert not Fulfilment.objects.exists()


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


@pytest.mark.parametrize("status", ["paid", "partially_refunded"])
def test_an_order_of_which_a_part_went_back_is_fulfilled_too(paid, status):
    Transaction.objects.update(status=status)
    assert handlers.fulfil(context(paid))["fulfilled"] is True
    paid.refresh_from_db()
    assert paid.fulfilled_at is not None


def test_an_order_that_is_held_waits_for_a_person(paid):
    Transaction.objects.update(held_at=paid.created_at)
    assert handlers.fulfil(context(paid))["fulfilled"] is False
    paid.refresh_from_db()
    assert paid.fulfilled_at is None
    assert not Fulfilment.objects.exists()


def ship(row, ctx):
    """The effect of a shop: its own row, in the transaction of the fulfilment."""
    group = Group.objects.create(name=f"shipment of {row.order_id}")
    return {"shipment": group.name, "asked by": ctx.correlation_id}


def fail(row, ctx):
    ship(row, ctx)
    raise ValueError("no stock")


def test_the_effect_is_the_function_that_the_setting_names(paid, settings):
    settings.PAYMENTS_EFFECT = f"{__name__}.ship"
    ctx = context(paid)
    told = {"shipment": "shipment of order_1", "asked by": "delivery"}
    assert handlers.fulfil(ctx) == ctx.completed == {"fulfilled": True, **told}
    assert Fulfilment.objects.get().detail == told
    assert Group.objects.filter(name="shipment of order_1").count() == 1
    handlers.fulfil(context(paid))
    assert Group.objects.filter(name="shipment of order_1").count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_effect_that_fails_leaves_nothing_and_is_tried_again(paid, settings):
    settings.PAYMENTS_EFFECT = f"{__name__}.fail"
    with pytest.raises(ValueError, match="no stock"):
        handlers.fulfil(context(paid))
    paid.refresh_from_db()
    assert paid.fulfilled_at is None
    assert not Fulfilment.objects.exists()
    assert not Group.objects.filter(name__startswith="shipment").exists()
    settings.PAYMENTS_EFFECT = f"{__name__}.ship"
    assert handlers.fulfil(context(paid))["fulfilled"] is True


@pytest.mark.django_db(transaction=True)
def test_a_delivery_is_fulfilled_by_a_real_worker_and_leaves_its_trail(run_worker):
    deliver()
    delivery = WebhookDelivery.objects.get()
    assert run_worker("--drain").wait() == 0
    fulfilment, receipt = Task.objects.order_by("id")
    row = Transaction.objects.get()
    assert (fulfilment.status, receipt.status) == ("completed", "completed")
    assert fulfilment.correlation_id == receipt.correlation_id == str(delivery.id)
    assert receipt.result["sent"] is True
    assert row.fulfilled_at is not None
    assert Fulfilment.objects.get().task_id == row.task_id == fulfilment.id


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


@pytest.mark.parametrize(
    ("refusal", "error", "says"),
    [
        (smtplib.SMTPRecipientsRefused({"a@b.example": (550, b"no")}), Fail, "order_1"),
        (smtplib.SMTPRecipientsRefused({"a@b.example": (451, b"later")}), MailRefused, "451"),
        (smtplib.SMTPDataError(451, b"a@b.example is greylisted"), MailRefused, "451"),
    ],
)
def test_only_a_lasting_refusal_fails_for_good_and_none_quotes_the_address(
    paid, refusal, error, says, monkeypatch
):
    def refuse(*args, **kwargs):
        raise refusal

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
    with pytest.raises(error, match=says) as raised:
        handlers.send_receipt(context(paid))
    told = "".join(traceback.format_exception(raised.value))
    assert "a@b.example" not in told


@pytest.mark.parametrize("announced", [True, False])
def test_an_order_that_is_named_before_it_is_fulfilled_is_fulfilled_by_that_name(announced):
    """Stripe's payment intent came first; its checkout names the order."""
    if announced:
        expect_order("order_1", 50000, "INR", provider="stripe")
    deliver_stripe("payment_intent.succeeded", intent(metadata={}), "evt_1")
    task = Task.objects.get()
    assert (task.payload["order_id"], task.status) == ("pi_1", "scheduled")
    deliver_stripe("checkout.session.completed", checkout(), "evt_2")
    handlers.fulfil(Context(task.payload))
    row = Transaction.objects.get()
    assert (row.order_id, row.fulfilled_at is not None) == ("order_1", True)
    assert (row.fulfilment.order_id, row.fulfilment.transaction_id) == ("order_1", row.id)


def test_an_order_that_is_named_after_it_was_fulfilled_is_not_fulfilled_again():
    deliver_stripe("payment_intent.succeeded", intent(metadata={}), "evt_1")
    handlers.fulfil(Context(Task.objects.get().payload))
    deliver_stripe("checkout.session.completed", checkout(), "evt_2")
    row = Transaction.objects.get()
    assert (row.order_id, row.fulfilment.order_id) == ("order_1", "order_1")
    assert handlers.fulfil(context(row))["fulfilled"] is False
    assert list(Task.objects.order_by("id").values_list("type", flat=True)) == [
        "payments.fulfil",
        "payments.send_receipt",
    ]
