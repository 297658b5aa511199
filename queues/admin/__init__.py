"""The stock admin for the tables of the queue. Changing a task goes through its verbs."""

from queues.admin import others, queue, task
from queues.admin.shared import ReadOnlyAdmin

__all__ = ["ReadOnlyAdmin", "others", "queue", "task"]
