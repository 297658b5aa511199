"""Tasks of Django's Tasks API in a worker: calling their functions, and sending the signals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from queues.registry import HandlerFunction
from queues.retry import Fail, LostLease
from queues.tasks_api import Task, TaskContext, normalize_json, task_finished, task_started

if TYPE_CHECKING:
    from queues.worker import TaskContext as WorkerContext


def handler_of(task: Task[..., Any]) -> HandlerFunction:
    """The handler that runs this task's function: a coroutine function if that is one."""
    if iscoroutinefunction(task.func):

        @wraps(task.func)
        async def run_async(ctx: WorkerContext) -> Any:
            args, kwargs = await sync_to_async(_begin_beside_loop)(task, ctx)
            return _plain(await task.func(*args, **kwargs))

        return run_async

    @wraps(task.func)
    def run(ctx: WorkerContext) -> Any:
        args, kwargs = _begin(task, ctx)
        return _plain(task.func(*args, **kwargs))

    return run


def _begin_beside_loop(
    task: Task[..., Any], ctx: WorkerContext
) -> tuple[list[Any], dict[str, Any]]:
    # Queries of coroutines run in a thread of their own, whose connection no executor looks after.
    close_old_connections()
    return _begin(task, ctx)


def _begin(task: Task[..., Any], ctx: WorkerContext) -> tuple[list[Any], dict[str, Any]]:
    """Send task_started and give what to call the function with."""
    # Here, because tasks are declared before the models are loaded.
    from queues import backend_results

    if not _is_arguments(ctx.payload):
        raise Fail('The payload is not {"args": [...], "kwargs": {...}}, as a Django task\'s is.')
    found = backend_results.rows([ctx.id])
    if not found or found[0].lease != ctx.task.lease:
        raise LostLease(f"task {ctx.id} is no longer this worker's")
    result = backend_results.result_of(found[0], task, task.backend)
    task_started.send_robust(type(task.get_backend()), task_result=result)
    first = [TaskContext(task_result=result)] if task.takes_context else []
    return [*first, *result.args], result.kwargs


def _is_arguments(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.keys() <= {"args", "kwargs"}
        and isinstance(payload.get("args", []), list)
        and isinstance(payload.get("kwargs", {}), dict)
    )


def _plain(value: Any) -> Any:
    """The value as Django's Tasks API stores it; one that cannot be stored is left to the executor,
    which says why."""
    try:
        return normalize_json(value)
    except (TypeError, ValueError):
        return value


def tell_finished(ids: Sequence[UUID]) -> None:
    """Send task_finished for tasks whose final outcome has been recorded."""
    from queues import backend, backend_results

    for row in backend_results.rows(ids):
        task = backend.declared(row.type)
        if task is None:
            continue
        result = backend_results.result_of(row, task, task.backend)
        if result.is_finished:
            task_finished.send_robust(type(task.get_backend()), task_result=result)
