from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from queues.models.shared import DatabaseClock, NewTaskId


class Operation(models.Model):
    """One act of a person: who, why, what. Written in the transaction of the change itself."""

    id = models.UUIDField(primary_key=True, db_default=NewTaskId(), editable=False)
    verb = models.TextField()
    actor = models.TextField(help_text="The user's name, kept when the user is deleted.")
    reason = models.TextField(blank=True, db_default="")
    requested = models.PositiveIntegerField()
    done = models.PositiveIntegerField()
    skipped = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=DatabaseClock())

    class Meta:
        db_table = "operations"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="operations_adds_up", condition=Q(requested=F("done") + F("skipped"))
            )
        ]

    def __str__(self) -> str:
        return f"{self.verb} by {self.actor}"


class OperationItem(models.Model):
    """What an operation did to one task, or why it left it alone."""

    id = models.BigAutoField(primary_key=True)
    operation = models.ForeignKey(Operation, models.CASCADE, related_name="items")
    task_id = models.UUIDField()
    outcome = models.TextField()
    before = models.TextField(blank=True, db_default="")
    after = models.TextField(blank=True, db_default="")
    note = models.TextField(blank=True, db_default="")

    class Meta:
        db_table = "operation_items"
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                name="operation_items_outcome_known", condition=Q(outcome__in=["done", "skipped"])
            )
        ]
        indexes = [models.Index("task_id", name="operation_items_task")]

    def __str__(self) -> str:
        return f"{self.outcome} {self.task_id}"
