"""Tasks of Django's Tasks API for the tests' worker processes."""

import asyncio
import os

from asgiref.sync import sync_to_async
from django.dispatch import receiver

from queues.models import Queue
from queues.retry import Fail, Retry
from queues.tasks_api import task, task_finished, task_started


@task
def add(left, right=0):
    return left + right


@task(priority=10)
def log(file, line):
    with open(file, "a") as out:
        out.write(f"{line}\n")


@task(takes_context=True)
def attempts(context, fail_until, extra=None):
    """Fails until this attempt, then says what it was told."""
    if context.attempt < fail_until:
        raise Retry(f"attempt {context.attempt}", after=0.01)
    result = context.task_result
    return {
        "attempt": context.attempt,
        "status": result.status,
        "workers": len(result.worker_ids),
        "errors": [error.exception_class_path for error in result.errors],
        "arguments": [result.args, result.kwargs],
        "extra": extra,
    }


class Broken(Exception):
    pass


@task
def broken(message):
    raise Broken(message)


@task
def refuses():
    raise Fail("can never work")


@task
async def queues_named(prefix):
    """A coroutine function, with queries of both kinds."""
    await asyncio.sleep(0)
    names = [queue.name async for queue in Queue.objects.filter(name__startswith=prefix)]
    return [names, await sync_to_async(Queue.objects.filter(name=prefix).count)()]


@task
async def broken_coroutine():
    await asyncio.sleep(0)
    raise Broken("in a coroutine")


@task
def returns(what):
    values = {"tuple": (1, (2,)), "bytes": b"text", "object": object(), "nothing": None}
    return values.get(what, what)


@receiver(task_started)
@receiver(task_finished)
def note_signal(sender, signal, task_result, **kwargs):
    """A line for each signal, where a test has named a file in this process's environment."""
    if path := os.environ.get("SIGNALS_FILE"):
        name = "started" if signal is task_started else "finished"
        stored = task_result.task.get_backend().get_result(task_result.id)
        with open(path, "a") as out:
            out.write(
                f"{name} {task_result.task.name} {sender.__name__} {task_result.status}"
                f" {stored.status} {task_result.attempts} {os.getpid()}\n"
            )


@receiver(task_started)
def broken_receiver(sender, task_result, **kwargs):
    if task_result.args == ["receiver fails"]:
        raise ValueError("a receiver that fails is not the task's affair")
