"""Handlers for the tests' worker processes. What they do is seen in rows and files."""

import asyncio
import ctypes
import os
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from asgiref.sync import sync_to_async
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


@handles("async_sleep")
async def async_sleep(ctx):
    await asyncio.sleep(ctx.payload["seconds"])


going: Counter[str] = Counter()


@handles("async_gate")
async def async_gate(ctx):
    """How many of these ran at once when this one went through."""
    going["now"] += 1
    going["most"] = max(going["now"], going["most"])
    while not Path(ctx.payload["go"]).exists():
        await asyncio.sleep(0.05)
    going["now"] -= 1
    return going["most"]


@handles("async_wait")
async def async_wait(ctx):
    """Never asks whether its task is still its own."""
    Path(ctx.payload["started"]).touch()
    try:
        await asyncio.sleep(3600)
    finally:
        Path(ctx.payload["ended"]).touch()


@handles("async_fail", max_attempts=2, backoff=0.01)
async def async_fail(ctx):
    await asyncio.sleep(0)
    raise ValueError("broken")


@handles("async_overrun", timeout=0.2, max_attempts=1)
async def async_overrun(ctx):
    await asyncio.sleep(3600)


@handles("async_gives_up", max_attempts=1)
async def async_gives_up(ctx):
    """Its own limit runs out, not the task's."""
    await asyncio.wait_for(asyncio.sleep(3600), 0.01)


@handles("async_query", max_attempts=1)
async def async_query(ctx):
    return await Queue.objects.acount()


@handles("async_complete", max_attempts=1)
async def async_complete(ctx):
    await sync_to_async(atomic_effect)(ctx)


@handles("batch_count", batch=50)
def batch_count(contexts):
    """One line a call: how many it was given, and in which process."""
    with open(contexts[0].payload["file"], "a") as file:
        file.write(f"{len(contexts)} {os.getpid()}\n")
    return [ctx.payload["n"] for ctx in contexts]


@handles("batch_outcomes", batch=50, max_attempts=2, backoff=0.01)
def batch_outcomes(contexts):
    outcomes = {
        "result": lambda ctx: {"attempt": ctx.attempt},
        "nothing": lambda ctx: None,
        "retry": lambda ctx: Retry("not yet", after=0.01) if ctx.attempt == 1 else "second",
        "fail": lambda ctx: Fail("never"),
        "snooze": lambda ctx: Snooze(3600, "not now"),
        "error": lambda ctx: ValueError("broken"),
        "large": lambda ctx: "x" * 2_000_000,
    }
    return [outcomes[ctx.payload](ctx) for ctx in contexts]


@handles("batch_wrong", batch=50, max_attempts=1)
def batch_wrong(contexts):
    match contexts[0].payload:
        case "short":
            return [1] * (len(contexts) - 1)
        case "text":
            return "done"
        case "raises":
            raise ValueError("broken")


@handles("killer", max_attempts=5, backoff=0.01)
def killer(ctx):
    """Ends the process that runs it, once the file to wait for exists."""
    wait_for(ctx.payload.get("after", "/"))
    match ctx.payload["how"]:
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "segfault":
            ctypes.string_at(0)


@handles("batch_killer", batch=50, max_attempts=5, backoff=0.01)
def batch_killer(contexts):
    """Waits for a file, then dies of one bad task among those of the call."""
    if any(ctx.payload["bad"] for ctx in contexts):
        wait_for(contexts[0].payload["after"])
        os.kill(os.getpid(), signal.SIGKILL)


@handles("stubborn", timeout=0.2, max_attempts=1)
def stubborn(ctx):
    while True:
        time.sleep(0.1)


@handles("where")
def where(ctx):
    """In which process it runs, and who started that."""
    ctx.output_location = "exports/where.zip"
    return [os.getpid(), os.getppid()]


@handles("snooze_hour")
def snooze_hour(ctx):
    raise Snooze(3600, "in an hour")
