"""The overview's verdict: what is wrong, ranked, each with its reason and the button to press.

Other apps add their own checks: `verdicts.register(function)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlencode

from django.urls import reverse

from queues.console.formats import count, duration
from queues.console.snapshot import Snapshot

LAG_SECONDS = 60
PAUSED_SECONDS = 3600
# As many are shown before the rest, which a person must unfold.
FIRST = 5


@dataclass(frozen=True)
class Problem:
    """Something a person should act on. A higher rank is shown first; money has those above 100."""

    rank: int
    title: str
    reason: str
    button: str
    url: str
    permission: str = "queue.view_task"


Check = Callable[[Snapshot], Iterable[Problem]]
_checks: list[Check] = []


def register(check: Check) -> Check:
    """Add a check; it sees the shared snapshot and yields problems."""
    _checks.append(check)
    return check


def problems(snapshot: Snapshot, may: Callable[[str], bool]) -> list[Problem]:
    """The problems, worst first, of those whose button the reader may press."""
    found = [p for check in _checks for p in check(snapshot) if may(p.permission)]
    return sorted(found, key=lambda problem: -problem.rank)


@register
def stuck_tasks(snapshot: Snapshot) -> Iterable[Problem]:
    if snapshot.stuck:
        yield Problem(
            100,
            f"{count(snapshot.stuck, 'task')} stuck",
            "Their worker is gone or their timeout has passed. Workers rescue them by themselves; "
            "if the number stays, no worker is sweeping.",
            "See the evidence",
            reverse("queue:stuck"),
        )


@register
def queues_without_worker(snapshot: Snapshot) -> Iterable[Problem]:
    for row in snapshot.queues:
        if row.pending and not row.has_worker:
            yield Problem(
                90,
                f"No live worker for queue {row.name}",
                f"{count(row.pending, 'task')} waiting, the oldest for {duration(row.lag)}. "
                "Start one: manage.py runworker.",
                "See workers",
                reverse("queue:workers"),
                "queue.view_worker",
            )


@register
def failures(snapshot: Snapshot) -> Iterable[Problem]:
    failed = snapshot.total("failed")
    if failed and snapshot.failures:
        worst, times = snapshot.failures[0]
        yield Problem(
            70,
            f"{count(failed, 'task')} failed for good in the last 24 hours",
            f"Most often ({times:,}×): {worst}",
            "Look at them",
            reverse("queue:tasks") + "?status=failed",
        )


@register
def lag(snapshot: Snapshot) -> Iterable[Problem]:
    for row in snapshot.queues:
        if row.has_worker and not row.paused and row.lag and row.lag > LAG_SECONDS:
            yield Problem(
                60,
                f"Queue {row.name} is {duration(row.lag)} behind",
                f"{count(row.pending, 'task')} waiting; {row.done:,} done in the last minute.",
                "See what waits",
                reverse("queue:tasks") + "?" + urlencode({"status": "pending", "queue": row.name}),
            )


@register
def forgotten_pauses(snapshot: Snapshot) -> Iterable[Problem]:
    for row in snapshot.queues:
        if not row.paused:
            continue
        seconds = (snapshot.at - row.paused_at).total_seconds() if row.paused_at else None
        if (
            row.paused_until is None
            and (seconds is None or seconds > PAUSED_SECONDS)
            and row.pending
        ):
            since = f" for {duration(seconds)}" if seconds else ""
            yield Problem(
                50,
                f"Queue {row.name} is paused{since}",
                f"{count(row.pending, 'task')} waiting. "
                + (row.paused_reason or "No reason was given."),
                "Open the queue",
                reverse("admin:queue_queue_change", args=[row.name]),
                "queue.view_queue",
            )


@register
def types_without_handler(snapshot: Snapshot) -> Iterable[Problem]:
    for type, tasks in snapshot.no_handler:
        yield Problem(
            40,
            f"No worker has a handler for {type!r}",
            f"{count(tasks, 'task')} returned unrun. Deploy the handler, or cancel them.",
            "See them",
            reverse("queue:tasks") + "?" + urlencode({"status": "scheduled", "type": type}),
        )
