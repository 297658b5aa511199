"""Django's Tasks API over the queue.

A `@task` lands in the table of all tasks: its type is the function's dotted path, its payload
{"args": [...], "kwargs": {...}}. A worker runs what was declared to it: applying `@task` declares a
function, and the module `tasks` of every installed app is imported at start. Nothing is ever
imported because a row names it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from queues import registry
from queues.tasks_api import (
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    normalize_json,
    task_backends,
    task_enqueued,
)

P = ParamSpec("P")
R = TypeVar("R")

_declared: dict[str, Task[..., Any]] = {}


class PostgresBackend(BaseTaskBackend):
    """The backend to name in Django's TASKS setting.

    OPTIONS: max_attempts, timeout and backoff, as for registry.handles. A task may raise what every
    handler may (queues.retry) and, like every handler's, is tried again when it fails.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.limits = _limits(alias, self.options)

    def validate_task(self, task: Task[..., Any]) -> None:
        super().validate_task(task)
        known = _declared.get(task.module_path)
        if known is None or known.func is not task.func:
            self._declare(task)

    def _declare(self, task: Task[..., Any]) -> None:
        from queues import backend_worker

        registry.register(
            registry.Handler(
                type=task.module_path,
                function=backend_worker.handler_of(task),
                queue=task.queue_name,
                priority=int(task.priority),
                on_finished=backend_worker.tell_finished,
                **self.limits,
            )
        )
        _declared[task.module_path] = task

    def enqueue(
        self, task: Task[P, R], args: list[Any], kwargs: dict[str, Any]
    ) -> TaskResult[P, R]:
        """Enqueue inside the caller's transaction: the task runs only if that commits.

        Raises TypeError or ValueError for arguments that JSON cannot hold.
        """
        # Here, because tasks are declared before the models are loaded.
        from queues import backend_results
        from queues.enqueue import enqueue

        self.validate_task(task)
        made = enqueue(
            task.module_path,
            normalize_json({"args": args, "kwargs": kwargs}),
            queue=task.queue_name,
            priority=int(task.priority),
            run_at=task.run_after,
            max_attempts=self.limits.get("max_attempts"),
            timeout=self.limits.get("timeout"),
        )
        [row] = backend_results.rows([made.id])
        result = backend_results.result_of(row, task, self.alias)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        from queues import backend_results

        row = backend_results.find(result_id)
        task = _declared.get(row.type) if row else None
        if row is None or task is None:
            raise TaskResultDoesNotExist(result_id)
        try:
            task = task.using(
                priority=row.priority,
                queue_name=row.queue,
                run_after=row.run_at if row.status == "scheduled" else None,
                backend=self.alias,
            )
        except InvalidTask:
            # Its row was moved to a queue that this backend does not name.
            task = task.using(priority=row.priority, backend=self.alias)
        return backend_results.result_of(row, task, self.alias)


def declared(type: str) -> Task[..., Any] | None:
    """The task of this dotted path, where this process has imported it."""
    return _declared.get(type)


def queue_names() -> set[str]:
    """The queues that the QUEUES of our backends name; migrate creates them."""
    ours = [backend for backend in task_backends.all() if isinstance(backend, PostgresBackend)]
    return {name for backend in ours for name in backend.queues}


def _limits(alias: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options as a Handler takes them. Raises InvalidTaskBackend for one that it cannot take."""
    limits: dict[str, Any] = {}
    for name, value in options.items():
        if name == "max_attempts" and type(value) is int and 1 <= value <= 100:
            limits[name] = value
        elif name in ("timeout", "backoff") and _is_span(value):
            limits[name] = registry.as_timedelta(value)
        else:
            raise InvalidTaskBackend(
                f"TASKS[{alias!r}] has the option {name}={value!r}. The options are max_attempts "
                "(1 to 100), timeout and backoff (seconds above 0, or a timedelta)."
            )
    return limits


def _is_span(value: Any) -> bool:
    if isinstance(value, timedelta):
        return value > timedelta(0)
    return type(value) in (int, float) and value > 0
