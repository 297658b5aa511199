"""The nouns of the queue: tables, columns, constraints and indexes.

Every change of a task's state is an SQL function (queues/sql), wrapped once in queues/claims.py,
queues/enqueue.py or queues/operations.py. Code that saves a Task by hand still cannot break the
rules: CHECK constraints forbid impossible rows and a trigger refuses illegal transitions.
"""

from queues.models.archive import AnyTask, ArchivedTask
from queues.models.operation import Operation, OperationItem
from queues.models.project import Endpoint, ProjectMember
from queues.models.queue import Queue
from queues.models.shared import CALENDAR, MAX_JSON_BYTES, DatabaseClock, NewTaskId
from queues.models.task import Task, TaskDependency, TaskFields
from queues.models.worker import Worker

__all__ = [
    "CALENDAR",
    "MAX_JSON_BYTES",
    "AnyTask",
    "ArchivedTask",
    "DatabaseClock",
    "Endpoint",
    "NewTaskId",
    "Operation",
    "OperationItem",
    "ProjectMember",
    "Queue",
    "Task",
    "TaskDependency",
    "TaskFields",
    "Worker",
]
