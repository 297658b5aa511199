"""Handlers for the tests' worker processes. What they do is seen in rows and files."""

import os
import signal
import time
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
