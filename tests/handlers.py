"""Handlers for the tests' worker processes. What they do is seen in rows and files."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from django.db import transaction

from queues.models import Queue
from queues.registry import handles
from queues.retry import Fail, Retry, Snooze
from queues.worker import TaskContext


def wait_for(path: str, ctx: TaskContext | None = None) -> None:
    """Until the test makes this file; with ctx, or until the task is taken away."""
    while not Path(path).exists():
        if ctx:
            ctx.check()
        time.sleep(0.01)


@handles("echo")
def echo(ctx):
    return ctx.payload


@handles("append", max_attempts=10)
def append(ctx):
    """One line a run: who ran what, at which attempt."""
    with open(ctx.payload["file"], "a") as file:
        file.write(f"{ctx.id} {ctx.attempt} {os.getpid()}\n")


@handles("fail", max_attempts=2, backoff=0.01)
def fail(ctx):
    raise ValueError(f"broken at {ctx.attempt} '{ctx.id}'")


@handles("fail_for_good")
def fail_for_good(ctx):
    raise Fail("can never work")


@handles("retry_soon", max_attempts=3)
def retry_soon(ctx):
    if ctx.attempt < 3:
        raise Retry("not yet", after=0.01)
    return ctx.attempt


@handles("snooze_once")
def snooze_once(ctx):
    if not Path(ctx.payload["file"]).exists():
        Path(ctx.payload["file"]).touch()
        raise Snooze(0.05, "not now")
    return ctx.attempt


@handles("exit")
def exit(ctx):
    raise SystemExit(3)


@handles("bad_result")
def bad_result(ctx):
    return {"nan": float("nan"), "object": object(), "large": "x" * 2_000_000}[ctx.payload]


@handles("nul_error", max_attempts=1)
def nul_error(ctx):
    raise ValueError("a\x00b\ud800")


@handles("wait")
def wait(ctx):
    Path(ctx.payload["started"]).touch()
    wait_for(ctx.payload["go"], ctx)
    return "waited"


@handles("progress")
def progress(ctx):
    ctx.progress(50, "half way")
    wait_for(ctx.payload["go"], ctx)


@handles("overrun", timeout=0.2, max_attempts=1)
def overrun(ctx):
    wait_for("/nowhere", ctx)


class Unprintable(Exception):
    def __str__(self):
        return None


@handles("poison", max_attempts=1)
def poison(ctx):
    """Each kind once ended a thread of the worker, or would."""
    match ctx.payload:
        case "snooze":
            raise Snooze(timedelta(days=3_000_000))
        case "retry":
            raise Retry("later", after=timedelta(days=3_000_000))
        case "output":
            ctx.output_location = "exports/\udcff.zip"
        case "unprintable":
            raise Unprintable
        case "progress":
            ctx.progress(10, 5)
        case "autocommit":
            transaction.set_autocommit(False)
            Queue.objects.create(name="never-committed")
        case "huge":
            raise ValueError("x" * 3_000_000)


@handles("complete_then_fail", max_attempts=2, backoff=0.01)
def complete_then_fail(ctx):
    with transaction.atomic():
        ctx.complete("too early")
        if ctx.attempt == 1:
            raise ValueError("after all")


@handles("hold_row", max_attempts=1)
def hold_row(ctx):
    """Keeps its own row locked for a while, with progress to report meanwhile."""
    with transaction.atomic():
        ctx.complete("held")
        for percent in range(100):
            ctx.progress(percent)
            time.sleep(0.03)


@handles("atomic_effect", max_attempts=5)
def atomic_effect(ctx):
    """An effect in the database that commits with the task's completion; killed on either side."""
    kill = ctx.payload.get("kill")
    with transaction.atomic():
        Queue.objects.create(name=f"effect-{ctx.id}")
        ctx.complete("done")
        if kill == "before" and ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    if kill == "after" and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
