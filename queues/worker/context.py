"""What a handler is given: its task, and how to talk to the queue while it runs."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from queues import claims
from queues.claims import ClaimedTask, Success
from queues.retry import LostLease, TaskTimeout

_UNREAD = object()


class TaskContext:
    """One attempt at one task.

    `attempt` counts from 1. `correlation_id` ties a webhook, its task and that task's children
    together: pass it on when you enqueue. `stopping` turns true when the worker shuts down: long
    work may raise Snooze(0) then, to go on elsewhere. Set `output_location` to the storage name of a file that
    the task made.
    """

    def __init__(self, task: ClaimedTask, deadline: float | None = None) -> None:
        self.task = task
        self.output_location: str | None = None
        self.lost = False
        self.stopping = False
        self.completed = False
        self.latest_progress: tuple[int, str | None] | None = None
        self.bad_payload: Exception | None = None
        self._deadline = deadline
        self._payload: Any = _UNREAD

    @property
    def id(self) -> UUID:
        return self.task.id

    @property
    def type(self) -> str:
        return self.task.type

    @property
    def payload(self) -> Any:
        """Any JSON value. Raises ValueError or RecursionError for one beyond Python's bounds, which
        fails the task for good."""
        if self._payload is _UNREAD:
            try:
                self._payload = self.task.payload
            except (ValueError, RecursionError) as error:
                self.bad_payload = error
                raise
        return self._payload

    @property
    def attempt(self) -> int:
        return self.task.attempts

    @property
    def correlation_id(self) -> str:
        """The task's correlation id; its own id where it has none, so that children share one."""
        return self.task.correlation_id or self.task.key

    @property
    def tenant_id(self) -> str | None:
        return self.task.tenant_id

    def overran(self, seconds: float) -> bool:
        """Whether the task's time has been up for so many seconds."""
        return self._deadline is not None and time.monotonic() > self._deadline + seconds

    def progress(self, percent: float, note: str | None = None) -> None:
        """Show how far the task is: 0 to 100, and a sentence. Cheap: call it as often as you like.

        It reaches the database about once a second, outside the handler's own transaction. Raises
        what check() raises.
        """
        self.latest_progress = (max(0, min(100, int(percent))), None if note is None else str(note))
        self.check()

    def check(self) -> None:
        """Call between steps of long work. Raises LostLease when the task was cancelled or given to
        another worker, TaskTimeout when its time is up: let both pass through."""
        if self.lost:
            raise LostLease(f"task {self.id} is no longer this worker's")
        if self.overran(0):
            raise TaskTimeout(f"ran longer than its timeout of {self.task.timeout}")

    def complete(self, result: Any = None) -> None:
        """Complete the task inside the handler's own transaction: both commit, or neither does.

        Call it as the last statement of a transaction.atomic() block. Raises LostLease when the
        task is another's by now, which rolls the handler's writes back too.
        """
        if not connection.in_atomic_block:
            raise RuntimeError("ctx.complete() belongs inside transaction.atomic()")
        success = Success(self.id, self.task.lease, result, self.output_location)
        if claims.complete_tasks([success])[self.id] == "stale":
            raise LostLease(f"task {self.id} is no longer this worker's")
        # Should the transaction roll back after all, the attempt is reported like any other.
        transaction.on_commit(self._mark_completed)

    def _mark_completed(self) -> None:
        self.completed = True
