"""Projects and their members, the endpoints of the database's own requests, and row level security:
roles that are granted a table see the rows that a policy gives them (queues/grants.sql). The owner is
not affected."""

from django.db import migrations, models

import queues.models.shared

SECURED = (
    "tasks",
    "task_dependencies",
    "workers",
    "queues",
    "operations",
    "operation_items",
    "project_members",
    "endpoints",
)


class Migration(migrations.Migration):
    dependencies = [("queue", "0003_engine")]
    operations = [
        migrations.CreateModel(
            name="Endpoint",
            fields=[
                ("name", models.TextField(primary_key=True, serialize=False)),
                ("url", models.TextField(blank=True, db_default="")),
                (
                    "secret",
                    models.TextField(
                        blank=True,
                        db_default="",
                        help_text="Its name; the value is in the workers' environment.",
                    ),
                ),
            ],
            options={
                "db_table": "endpoints",
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("url", ""), ("url__regex", r"^https?://\S+$"), _connector="OR"
                        ),
                        name="endpoints_url_is_http",
                        violation_error_message="The URL begins with http:// or https://.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("secret__regex", "^[A-Za-z0-9_]{0,100}$")),
                        name="endpoints_secret_is_a_name",
                        violation_error_message="The secret's name has letters A to Z, digits and underscores.",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ProjectMember",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("project_id", models.TextField()),
                (
                    "user_id",
                    models.TextField(help_text="The claim `sub` of the user's token."),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=queues.models.shared.DatabaseClock(), editable=False
                    ),
                ),
            ],
            options={
                "db_table": "project_members",
                "ordering": ["project_id", "user_id"],
                "constraints": [
                    models.UniqueConstraint(
                        models.F("user_id"), models.F("project_id"), name="project_members_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("project_id__regex", r"\S"), ("user_id__regex", r"\S")),
                        name="project_members_ids_given",
                        violation_error_message="Give a project and a user.",
                    ),
                ],
            },
        ),
        *[
            migrations.RunSQL(
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
                f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            )
            for table in SECURED
        ],
    ]
