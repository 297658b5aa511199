"""The demo's first tasks: real payments, exports, mails and requests, and some that fail."""

from __future__ import annotations

import os
from datetime import timedelta

from django.db import transaction

from opsconsole.demo import seed_payments
from queues.enqueue import enqueue


def seed() -> None:
    """Enqueue what a newcomer sees first. Called once, on an empty queue."""
    with transaction.atomic():
        seed_payments.seed()
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
