"""The demo's first tasks: real payments, exports, mails and requests, and some that fail."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from payments import intake
from queues.enqueue import enqueue

ORDERS = 24


def seed() -> None:
    """Enqueue what a newcomer sees first. Called once, on an empty queue."""
    with transaction.atomic():
        _payments()
        _chain()
        enqueue(
            "export",
            {"source": "tasks", "filter": {"status": ["completed", "failed"]}},
            run_at=timedelta(seconds=12),
        )
        enqueue(
            "http_request",
            {
                "url": f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/demo/inbox",
                "json": {
                    "action": "process_queue_data_api",
                    "payload": {"limit": 10, "batch_size": 5},
                },
                "secret": "DEMO",
            },
            run_at=timedelta(seconds=3),
        )
        enqueue("demo.reconcile_partner", {"partner": "Northwind"})
        for invoice in (1042, 1043):
            enqueue("demo.print_invoice", {"invoice": invoice, "billing_address": None})
        enqueue("demo.count_primes", {"limit": 600_000_000}, priority=-10)
        enqueue(
            "export",
            {"source": "transactions", "filter": {}},
            run_at=timedelta(hours=12),
            dedupe_key="nightly",
        )


def _chain() -> None:
    """Export the ledger, check the file, mail the report: each step waits for the one before."""
    export = enqueue(
        "export",
        {"source": "transactions", "filter": {"status": "paid"}},
        run_at=timedelta(seconds=2),
    )
    trail = str(export.id)
    check = enqueue(
        "demo.verify_export", {"export": str(export.id)}, after=[export.id], correlation_id=trail
    )
    enqueue(
        "demo.mail_report",
        {"check": str(check.id), "to": "finance@example.com"},
        after=[check.id],
        correlation_id=trail,
    )


def _payments() -> None:
    """Signed Razorpay deliveries through the real intake: payments, one of them told twice."""
    for n in range(1, ORDERS + 1):
        _deliver(n, amount=49_900 + 1_000 * n)
    _deliver(1, amount=50_900)


def _deliver(n: int, amount: int) -> None:
    payment = {
        "id": f"pay_demo{n:04}",
        "entity": "payment",
        "amount": amount,
        "currency": "INR",
        "status": "captured",
        "order_id": f"order_demo{n:04}",
        "email": f"customer{n}@example.com",
        "notes": [],
    }
    event = {
        "entity": "event",
        "event": "payment.captured",
        "contains": ["payment"],
        "payload": {"payment": {"entity": payment}},
        "created_at": 1_700_000_000 + n,
    }
    body = json.dumps(event).encode()
    secret = settings.RAZORPAY_WEBHOOK_SECRETS[0].encode()
    headers = {
        "Content-Type": "application/json",
        "X-Razorpay-Signature": hmac.new(secret, body, hashlib.sha256).hexdigest(),
        "X-Razorpay-Event-Id": f"event_demo{n:04}",
    }
    intake.receive("razorpay", body, headers)
