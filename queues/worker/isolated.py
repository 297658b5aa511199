"""A task that lost its worker before runs in a process of its own: should it kill that one too, no
neighbour goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from queues import registry
from queues.claims import ClaimedTask, Completed, Failure
from queues.worker import judge
from queues.worker.board import died, exit_of
from queues.worker.context import TaskContext
from queues.worker.holdings import Holding
from queues.worker.outcomes import Outcome, Release

CHILD = "import django; django.setup(); from queues.worker.isolated import main; main()"
LOOK_SECONDS = 0.2
STOP_SECONDS = 5.0


def run_isolated(holding: Holding, handler: registry.Handler) -> Outcome:
    """Run the task in a child process. A child that dies is a failed attempt, counted as lost."""
    context = holding.begin()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,
    ) as child:
        # The pipe stays open: when this process dies, the child reads its end and goes too.
        assert child.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(holding.task).encode() + b"\n")
            child.stdin.flush()
        try:
            told = _follow(child, context)
        finally:
            if child.poll() is None:
                child.kill()
    if context.lost:
        return judge.NOTHING
    if told is not None:
        context.completed = told["completed"]
        return _outcome(told)
    if child.returncode == -signal.SIGKILL and context.overran(STOP_SECONDS):
        return judge.overrun(holding.task, handler)
    how = exit_of(child.returncode)
    return replace(died(holding.task.key, holding.task.lease, how), backoff=handler.backoff)


def _follow(child: subprocess.Popen[bytes], context: TaskContext) -> dict[str, Any] | None:
    """Read what the child tells until its outcome, its end, its timeout or the loss of the task."""
    assert child.stdout is not None  # noqa: S101
    while not context.lost and not context.overran(STOP_SECONDS):
        if not select.select([child.stdout], [], [], LOOK_SECONDS)[0]:
            continue
        line = child.stdout.readline()
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
            return None
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if not isinstance(told, dict):
                continue
            if "progress" in told:
                context.latest_progress = (told["progress"], told["note"])
            elif "outcome" in told:
                return cast(dict[str, Any], told)
    return None


def _outcome(told: dict[str, Any]) -> Outcome:
    fields = told["fields"]
    match told["outcome"]:
        case "Completed":
            return Completed(**fields)
        case "Failure":
            for name in ("delay", "backoff"):
                fields[name] = None if fields[name] is None else timedelta(seconds=fields[name])
            return Failure(**fields | {"id": UUID(fields["id"])})
        case "Release":
            return Release(**fields | {"delay": timedelta(seconds=fields["delay"])})
        case _:
            return judge.NOTHING


def main() -> None:
    """The child: read one task, run its handler, tell the outcome on what was standard output."""
    tell = os.fdopen(os.dup(1), "w", buffering=1)
    # What the handler prints must not be taken for what we tell.
    os.dup2(2, 1)
    task = ClaimedTask(*json.loads(sys.stdin.readline()))
    holding = Holding(task, time.monotonic())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    handler = registry.find(task.type)
    if handler is None:
        outcome: Outcome = judge.no_handler(task)
    else:
        threading.Thread(target=_tell_progress, args=(holding, tell), daemon=True).start()
        outcome = _call(holding, handler)
    told = {
        "outcome": type(outcome).__name__,
        "fields": {} if outcome is judge.NOTHING else _plain(outcome),
        "completed": holding.context is not None and holding.context.completed,
    }
    tell.write(json.dumps(told) + "\n")
    tell.flush()
    os._exit(0)


def _call(holding: Holding, handler: registry.Handler) -> Outcome:
    if handler.is_coroutine:
        return asyncio.run(judge.await_call(holding, handler))
    if handler.batch > 1:
        return judge.call_many([holding], handler)[0]
    return judge.call(holding, handler)


def _plain(outcome: Outcome) -> dict[str, Any]:
    fields = outcome._asdict() if isinstance(outcome, Completed) else asdict(outcome)
    return {
        key: value.total_seconds()
        if isinstance(value, timedelta)
        else str(value)
        if key == "id"
        else value
        for key, value in fields.items()
    }


def _tell_progress(holding: Holding, tell: Any) -> None:
    told = None
    while True:
        time.sleep(LOOK_SECONDS)
        latest = holding.context and holding.context.latest_progress
        if latest and latest != told:
            tell.write(json.dumps({"progress": latest[0], "note": latest[1]}) + "\n")
            told = latest


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
