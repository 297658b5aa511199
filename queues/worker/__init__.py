"""The worker process: claims tasks in batches, runs their handlers in threads, reports outcomes."""

from queues.worker.context import TaskContext
from queues.worker.runner import Options, Worker

__all__ = ["Options", "TaskContext", "Worker"]
