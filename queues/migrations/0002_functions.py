"""The verbs, the foreign key that is checked at once, and how the busy tables are stored."""

from django.db import migrations

from queues.migration_files import run_sql_file

STORAGE = """
ALTER TABLE tasks ADD CONSTRAINT tasks_queue_exists FOREIGN KEY (queue) REFERENCES queues (name);
ALTER TABLE tasks SET (fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE workers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
ALTER TABLE queues SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
"""

FUNCTIONS = [
    "require_read_committed",
    "refuse_illegal_transition",
    "hold_until_due",
    "wake_workers",
    "retry_delay",
    "attempt_record",
    "add_error",
    "stuck_reason",
    "lock_with_dependants",
    "settle_dependants",
    "enqueue_task",
    "enqueue_tasks",
    "create_task",
    "promote_due",
    "seat_worker",
    "register_worker",
    "worker_idle",
    "claim_tasks",
    "claim_next_task",
    "heartbeat",
    "complete_tasks",
    "complete_task",
    "fail_tasks",
    "fail_task",
    "release_tasks",
    "report_progress",
    "unregister_worker",
    "mark_workers_gone",
    "lost_sentence",
    "rescue_lost",
    "retry_tasks",
    "requeue_tasks",
    "cancel_tasks",
]


class Migration(migrations.Migration):
    dependencies = [("queue", "0001_initial")]
    operations = [
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        *[run_sql_file(f"0002_{name}.sql") for name in FUNCTIONS],
    ]
