"""Fair and limited queues, lanes by tenant, and rules that a claim and a finish need not pay for."""

import django.db.models.functions.comparison
from django.db import migrations, models
from django.db.models import F, Q, Value
from django.db.models.functions import Now

OLD_CHECKS = [
    "tasks_status_known",
    "tasks_processing_has_worker_and_start",
    "tasks_waiting_has_no_worker",
    "tasks_completed_at_when_final",
    "tasks_blocked_while_waiting_on",
    "tasks_type_1_to_200_characters",
    "tasks_priority_range",
    "tasks_attempts_range",
    "tasks_moments_in_calendar",
    "tasks_timeout_range",
    "tasks_errors_is_an_array",
    "tasks_progress_percent",
    "tasks_payload_at_most_1_mib",
    "tasks_result_at_most_1_mib",
    "tasks_keys_at_most_200_characters",
]
# The triggers come back with their functions, in 0006.
DROPPED = """
DROP TRIGGER tasks_hold_until_due ON tasks;
DROP TRIGGER tasks_legal_transition ON tasks;
ALTER TABLE tasks DROP CONSTRAINT tasks_queue_exists;
"""


class Migration(migrations.Migration):
    dependencies = [("queue", "0002_functions")]
    operations = [
        migrations.RunSQL(DROPPED, migrations.RunSQL.noop),
        migrations.AddField(
            "queue",
            "max_per_tenant",
            models.PositiveIntegerField(
                blank=True,
                help_text="Tasks processing at once for each tenant. Empty: no cap. Those without a tenant share one.",
                null=True,
            ),
        ),
        migrations.AddField(
            "queue",
            "fair",
            models.BooleanField(
                db_default=False,
                help_text="Tenants take turns: a flood of one tenant's tasks does not hold up the others.",
            ),
        ),
        migrations.AddField(
            "queue",
            "rate_limit",
            models.FloatField(
                blank=True,
                help_text="Tasks started a second, over all workers. Empty: no limit.",
                null=True,
            ),
        ),
        migrations.AddField(
            "queue",
            "burst",
            models.PositiveIntegerField(
                db_default=1,
                help_text="With a rate limit: how many may start at once after a quiet time.",
            ),
        ),
        migrations.AddField("queue", "tokens", models.FloatField(db_default=0, editable=False)),
        migrations.AddField(
            "queue", "refilled_at", models.DateTimeField(db_default=Now(), editable=False)
        ),
        migrations.AddConstraint(
            "queue",
            models.CheckConstraint(
                condition=Q(max_per_tenant__gt=0),
                name="queues_max_per_tenant_positive",
                violation_error_message="Max per tenant is at least 1; leave it empty for no cap.",
            ),
        ),
        migrations.AddConstraint(
            "queue",
            models.CheckConstraint(
                condition=Q(rate_limit__gt=0, rate_limit__lte=1_000_000),
                name="queues_rate_limit_range",
                violation_error_message="The rate limit is more than 0 and at most 1,000,000 a second; leave it empty for none.",
            ),
        ),
        migrations.AddConstraint(
            "queue",
            models.CheckConstraint(
                condition=Q(burst__range=(1, 1_000_000)),
                name="queues_burst_range",
                violation_error_message="The burst is a number from 1 to 1,000,000.",
            ),
        ),
        *[migrations.RemoveConstraint("task", name) for name in OLD_CHECKS],
        migrations.AlterField("task", "attempts", models.IntegerField(db_default=0)),
        migrations.AlterField("task", "max_attempts", models.IntegerField(db_default=5)),
        migrations.RemoveIndex("task", "tasks_held"),
        migrations.RemoveIndex("task", "tasks_running"),
        migrations.AddIndex(
            "task",
            models.Index(
                "queue",
                "tenant_id",
                "worker_id",
                name="tasks_running",
                condition=Q(status="processing"),
            ),
        ),
        migrations.AddIndex(
            "task",
            models.Index(
                "queue",
                django.db.models.functions.comparison.Coalesce("tenant_id", Value("")),
                F("priority").desc(),
                "round",
                "run_at",
                "id",
                name="tasks_lane",
                condition=Q(status="pending") & (Q(tenant_id__isnull=False) | Q(round__gt=0)),
            ),
        ),
    ]
