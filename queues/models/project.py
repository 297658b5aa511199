from __future__ import annotations

from django.db import models
from django.db.models import Q

from queues.models.shared import DatabaseClock


class ProjectMember(models.Model):
    """Who belongs to which project. A task's project is its tenant_id; a user is known by the claim
    `sub` of its token. Clients of the database role `authenticated` reach the tasks of theirs only."""

    id = models.BigAutoField(primary_key=True)
    project_id = models.TextField()
    user_id = models.TextField(help_text="The claim `sub` of the user's token.")
    created_at = models.DateTimeField(db_default=DatabaseClock(), editable=False)

    class Meta:
        db_table = "project_members"
        ordering = ["project_id", "user_id"]
        constraints = [
            models.UniqueConstraint("user_id", "project_id", name="project_members_once"),
            models.CheckConstraint(
                name="project_members_ids_given",
                condition=Q(project_id__regex=r"\S", user_id__regex=r"\S"),
                violation_error_message="Give a project and a user.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.project_id}"


class Endpoint(models.Model):
    """Where a request that the database itself enqueues goes. The secret is here by name only: the
    worker that sends the request has its value as OPSCONSOLE_SECRET_<NAME>."""

    name = models.TextField(primary_key=True)
    url = models.TextField(blank=True, db_default="")
    secret = models.TextField(
        blank=True, db_default="", help_text="Its name; the value is in the workers' environment."
    )

    class Meta:
        db_table = "endpoints"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="endpoints_url_is_http",
                condition=Q(url="") | Q(url__regex=r"^https?://\S+$"),
                violation_error_message="The URL begins with http:// or https://.",
            ),
            models.CheckConstraint(
                name="endpoints_secret_is_a_name",
                condition=Q(secret__regex=r"^[A-Za-z0-9_]{0,100}$"),  # noqa: S106
                violation_error_message="The secret's name has letters A to Z, digits and underscores.",
            ),
        ]

    def __str__(self) -> str:
        return self.name
