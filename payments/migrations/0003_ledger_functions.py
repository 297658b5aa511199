"""The verbs of the ledger."""

from pathlib import Path

from django.db import migrations

from queues.migration_files import run_sql_file

FROZEN = Path(__file__).parent / "sql"
FUNCTIONS = [
    "apply_event",
    "bring_forward",
    "event_contradiction",
    "expect_order",
    "fold_order",
    "fulfil_again",
    "handle_delivery",
    "judge_event",
    "keep_apart",
    "keep_repeat",
    "ledger_differences",
    "lock_payment",
    "money_has_come",
    "payment_fault",
    "payment_rank",
    "purge_deliveries",
    "receive_delivery",
    "record_payment",
    "reject_delivery",
    "start_fulfilment",
    "undo_refund",
    "update_order",
]
# When the money of rows from before came, as far as is known.
BACKFILL = """
UPDATE transactions SET paid_at = updated_at WHERE status IN ('paid', 'refunded') AND paid_at IS NULL;
UPDATE transactions SET refunded = amount WHERE status = 'refunded' AND refunded = 0;
INSERT INTO order_payments (provider, payment_id, transaction_id, status, refunded)
SELECT provider, payment_id, id, status, refunded FROM transactions WHERE payment_id IS NOT NULL ORDER BY id
ON CONFLICT DO NOTHING;
UPDATE webhook_deliveries SET signed = false WHERE verdict = 'rejected';
"""


class Migration(migrations.Migration):
    dependencies = [("payments", "0002_ledger"), ("queue", "0006_functions")]
    operations = [
        # Functions may name one another: their bodies are checked when they are first called.
        migrations.RunSQL("SET LOCAL check_function_bodies = off", migrations.RunSQL.noop),
        *[run_sql_file(f"0003_{name}.sql", folder=FROZEN) for name in FUNCTIONS],
        migrations.RunSQL(BACKFILL, migrations.RunSQL.noop),
    ]
