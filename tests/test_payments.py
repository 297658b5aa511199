"""Providers, amounts, and what the admin shows of payments."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from django.urls import reverse

from payments.console.body import readable_body
from payments.models import Transaction, WebhookDelivery
from payments.money import format_amount
from payments.providers import base
from payments.providers.base import Event, NotConfigured, Provider, Rejected, UnknownProvider
from queues.models import Task
from tests.payment_events import sign

pytestmark = pytest.mark.django_db


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


def test_the_docs_provider_works(settings, client, monkeypatch):
    text = (Path(__file__).parent.parent / "docs" / "payments.md").read_text()
    code = re.search(r"```python\n(import hashlib.*?)```", text, re.S)[1]
    shop = ModuleType("shop_acme")
    exec(code, shop.__dict__)
    monkeypatch.setitem(sys.modules, "shop_acme", shop)
    settings.PAYMENT_PROVIDERS = {"acme": "shop_acme.Acme"}
    settings.ACME_WEBHOOK_SECRETS = ["s3cret"]
    body = json.dumps(
        {"id": "e1", "type": "paid", "order": "o1", "payment": "p1", "amount": 5, "currency": "EUR"}
    ).encode()
    headers = {"X-Acme-Signature": sign(body, "s3cret")}
    kind = "application/json"
    assert client.post("/webhooks/acme", body, kind, headers=headers).status_code == 200
    row = Transaction.objects.get()
    assert (row.provider, row.order_id, row.amount, row.status) == ("acme", "o1", 5, "paid")
    headers = {"X-Acme-Signature": "\u00e9" + sign(body, "s3cret")}
    assert client.post("/webhooks/acme", body, kind, headers=headers).status_code == 401


class Coupons(Provider):
    """A second provider: one class and one line of settings."""

    name = "coupons"

    def verify(self, body, headers, secrets):
        return Event(
            event_id=body.decode(),
            event_type="used",
            order_id="c1",
            payment_id="c1",
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
    assert Task.objects.get().dedupe_key == str(row.id)
    assert client.post("/webhooks/razorpay").status_code == 404


def test_a_provider_without_callback_or_books_says_so():
    provider = Coupons()
    with pytest.raises(Rejected, match="coupons signs nothing in the browser"):
        provider.verify_callback({})
    for ask in (lambda: provider.payments(None, None), lambda: provider.payments_of("c1")):
        with pytest.raises(NotConfigured, match="import its statement"):
            ask()


def test_blank_secrets_are_no_secrets(settings):
    settings.RAZORPAY_WEBHOOK_SECRETS = ["", " new ", "old"]
    assert base.webhook_secrets("razorpay") == ["new", "old"]
    settings.RAZORPAY_WEBHOOK_SECRETS = [" "]
    with pytest.raises(NotConfigured):
        base.webhook_secrets("razorpay")
    with pytest.raises(UnknownProvider):
        base.load("nobody")


@pytest.fixture
def paid(db):
    return Transaction.objects.create(
        order_id="order_1", payment_id="pay_1", email="a@b.example", amount=123450, status="paid"
    )


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
