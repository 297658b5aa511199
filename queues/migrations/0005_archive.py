"""The archive of finished tasks, and how long each queue keeps what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q, Value

from queues.models.shared import DatabaseClock, NewTaskId, TolerantDecoder

# The default partition takes what no day's partition takes, so that no move fails. Lists are newest
# ended first; nearly all tasks complete, so the others have an index of their own.
TABLES = """
CREATE TABLE tasks_archive (
    LIKE tasks INCLUDING DEFAULTS INCLUDING STORAGE,
    CONSTRAINT tasks_archive_finished CHECK (status IN ('completed', 'failed', 'cancelled')),
    PRIMARY KEY (id, completed_at)
) PARTITION BY RANGE (completed_at);
CREATE INDEX tasks_archive_ended ON tasks_archive (completed_at, id);
CREATE INDEX tasks_archive_unsuccessful ON tasks_archive (status, completed_at, id) WHERE status <> 'completed';
CREATE INDEX tasks_archive_correlation ON tasks_archive (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE TABLE tasks_archive_default PARTITION OF tasks_archive DEFAULT;
CREATE TABLE archive_marks (
    status text NOT NULL,
    queues text[] NOT NULL,
    day date NOT NULL,
    completed_at timestamptz NOT NULL,
    id uuid NOT NULL,
    PRIMARY KEY (status, queues)
);
ALTER TABLE tasks_archive ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasks_archive_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE archive_marks ENABLE ROW LEVEL SECURITY;
"""
READ_BY_CALLERS = "UPDATE queues SET archive_after = '30 days' WHERE name IN ('default', 'exports', 'gpu', 'jobs', 'sync')"
MINUTE, DAY, TEN_YEARS = timedelta(minutes=1), timedelta(days=1), timedelta(days=3660)


def columns() -> list[tuple[str, models.Field[Any, Any]]]:
    """The columns of a task."""
    return [
        (
            "id",
            models.UUIDField(
                db_default=NewTaskId(), editable=False, primary_key=True, serialize=False
            ),
        ),
        (
            "queue",
            models.ForeignKey(
                db_column="queue",
                db_constraint=False,
                db_default="default",
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="queue.queue",
            ),
        ),
        ("type", models.TextField()),
        (
            "payload",
            models.JSONField(
                blank=True,
                db_default=Value({}, output_field=models.JSONField()),
                decoder=TolerantDecoder,
            ),
        ),
        (
            "status",
            models.TextField(
                choices=[
                    ("blocked", "Blocked"),
                    ("scheduled", "Scheduled"),
                    ("pending", "Pending"),
                    ("processing", "Processing"),
                    ("completed", "Completed"),
                    ("failed", "Failed"),
                    ("cancelled", "Cancelled"),
                ],
                db_default="pending",
            ),
        ),
        (
            "priority",
            models.SmallIntegerField(db_default=0, help_text="-100 to 100; higher runs first."),
        ),
        ("tenant_id", models.TextField(blank=True, null=True)),
        ("run_at", models.DateTimeField(db_default=DatabaseClock())),
        ("attempts", models.IntegerField(db_default=0)),
        ("max_attempts", models.IntegerField(db_default=5)),
        (
            "lease",
            models.BigIntegerField(db_default=0, help_text="+1 at each claim, never down."),
        ),
        ("worker_id", models.TextField(blank=True, null=True)),
        ("started_at", models.DateTimeField(blank=True, null=True)),
        ("completed_at", models.DateTimeField(blank=True, null=True)),
        ("created_at", models.DateTimeField(db_default=DatabaseClock())),
        ("updated_at", models.DateTimeField(db_default=DatabaseClock())),
        (
            "timeout",
            models.DurationField(blank=True, help_text="Empty: the queue's default.", null=True),
        ),
        ("result", models.JSONField(blank=True, decoder=TolerantDecoder, null=True)),
        ("output_location", models.TextField(blank=True, null=True)),
        ("error", models.TextField(blank=True, null=True)),
        (
            "errors",
            models.JSONField(blank=True, db_default=Value([], output_field=models.JSONField())),
        ),
        ("error_fingerprint", models.TextField(blank=True, null=True)),
        ("progress", models.SmallIntegerField(blank=True, help_text="Percent.", null=True)),
        ("progress_note", models.TextField(blank=True, null=True)),
        ("waits_on", models.IntegerField(db_default=0)),
        ("dedupe_key", models.TextField(blank=True, null=True)),
        ("round", models.BigIntegerField(db_default=0)),
        ("correlation_id", models.TextField(blank=True, null=True)),
        (
            "lost",
            models.SmallIntegerField(db_default=0, help_text="Times its worker vanished."),
        ),
    ]


class Migration(migrations.Migration):
    dependencies = [("queue", "0004_contract")]
    operations = [
        migrations.AddField(
            "queue",
            "archive_after",
            models.DurationField(
                db_default=DAY,
                help_text="Completed and cancelled tasks move to the archive this long after their end.",
            ),
        ),
        migrations.AddField(
            "queue",
            "keep_failed",
            models.DurationField(
                db_default=timedelta(days=30),
                help_text="Failed tasks stay this long for someone to retry them, then move to the archive.",
            ),
        ),
        migrations.AddField(
            "queue",
            "keep_for",
            models.DurationField(
                db_default=timedelta(days=90),
                help_text="Archived tasks are kept at least this long after their end. The archive is"
                " dropped by whole days, so the longest time of all queues decides.",
            ),
        ),
        migrations.AddConstraint(
            "queue",
            models.CheckConstraint(
                condition=Q(archive_after__range=(MINUTE, TEN_YEARS)),
                name="queues_archive_after_range",
                violation_error_message="Archive after is at least a minute and at most ten years.",
            ),
        ),
        migrations.AddConstraint(
            "queue",
            models.CheckConstraint(
                condition=Q(keep_failed__range=(MINUTE, TEN_YEARS)),
                name="queues_keep_failed_range",
                violation_error_message="Keep failed is at least a minute and at most ten years.",
            ),
        ),
        migrations.AddConstraint(
            "queue",
            models.CheckConstraint(
                condition=Q(keep_for__range=(DAY, TEN_YEARS)),
                name="queues_keep_for_range",
                violation_error_message="Keep for is at least a day and at most ten years.",
            ),
        ),
        migrations.RunSQL(READ_BY_CALLERS, migrations.RunSQL.noop),
        migrations.SeparateDatabaseAndState(
            [migrations.RunSQL(TABLES, "DROP TABLE tasks_archive, archive_marks")],
            [
                migrations.CreateModel(
                    name="ArchivedTask",
                    fields=columns(),
                    options={"db_table": "tasks_archive", "ordering": ["-completed_at", "-id"]},
                ),
                # The view is made with the functions, in 0006.
                migrations.CreateModel(
                    name="AnyTask",
                    fields=[*columns(), ("archived", models.BooleanField())],
                    options={
                        "db_table": "all_tasks",
                        "managed": False,
                        "default_permissions": (),
                        "ordering": ["-id"],
                    },
                ),
            ],
        ),
    ]
