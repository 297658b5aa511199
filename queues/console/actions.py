"""What a button does: check the permission, ask where it matters, act, and say what happened."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from queues import guards, operations
from queues.console.access import staff_with, way_back
from queues.console.formats import count
from queues.console.verbs import VERBS, Verb
from queues.lookup import find_tasks
from queues.models import Operation, Queue
from queues.operations import OperationError

ASK_ABOVE = 20


@require_POST
@staff_with("queue.view_task")
def act(request: HttpRequest) -> HttpResponse:
    """Apply one verb to the selected tasks.

    Verbs that ask, taking a task from a living worker, tasks that a guard refuses and anything on
    more than ASK_ABOVE tasks are shown for confirmation first, with the rows it will touch; the
    selection is frozen in the form.
    """
    name = request.POST.get("verb", "")
    if name not in VERBS:
        return HttpResponseBadRequest("There is no such action.", content_type="text/plain")
    verb = VERBS[name]
    if not request.user.has_perm(verb.permission):
        raise PermissionDenied(verb.permission)
    try:
        ids, leases = _selection(request)
    except ValueError:
        return HttpResponseBadRequest(
            "The selection holds something that is no task.", content_type="text/plain"
        )
    back = way_back(request)
    if not ids:
        messages.warning(request, "No task was selected. Tick some rows, then press the button.")
        return redirect(back)
    if len(ids) > operations.MAX_TASKS:
        messages.error(
            request, f"{len(ids):,} tasks were selected; one act takes {operations.MAX_TASKS:,}."
        )
        return redirect(back)
    force = bool(request.POST.get("force"))
    if request.POST.get("confirmed") or not (
        verb.asks or force or len(ids) > ASK_ABOVE or guards.refusals(verb.operation, ids)
    ):
        return _carry_out(request, name, ids, leases, back)
    return ask(request, name, ids, back=back, leases=leases, force=force)


def _selection(request: HttpRequest) -> tuple[list[UUID], list[int] | None]:
    """Ids, and the leases that the person saw where the form says them ("id:lease")."""
    chosen: dict[UUID, int | None] = {}
    for value in request.POST.getlist("task"):
        id, _, lease = value.partition(":")
        if lease and not 0 <= int(lease) < 2**63:
            raise ValueError(lease)
        chosen.setdefault(UUID(id), int(lease) if lease else None)
    seen = [lease for lease in chosen.values() if lease is not None]
    return list(chosen), seen if seen and len(seen) == len(chosen) else None


def ask(
    request: HttpRequest,
    name: str,
    ids: list[UUID],
    *,
    back: str,
    leases: list[int] | None = None,
    force: bool = False,
) -> HttpResponse:
    """The page that shows what will be touched and asks to confirm it."""
    verb = VERBS[name]
    rows = find_tasks(ids)
    chosen = [f"{id}:{lease}" for id, lease in zip(ids, leases, strict=True)] if leases else ids
    shown = [rows[id] for id in ids if id in rows]
    refused = guards.refusals(verb.operation, ids)
    may_override = guards.overrides(request.user.has_perm)
    context = {
        "name": name,
        "verb": verb,
        "force": force,
        "tasks": [(row, refused[row.id].reason if row.id in refused else "") for row in shown],
        "refused": len(refused),
        "may_override": any(refusal.permission in may_override for refusal in refused.values()),
        "missing": len(ids) - len(rows),
        "selection": chosen,
        "back": back,
        "untouched": sum(row.status not in verb.legal for row in shown),
        "running": sum(row.status == "processing" for row in shown),
        "title": verb.title.format(count(len(ids), "task")),
        "queues": Queue.objects.values_list("name", flat=True) if verb.field == "queue" else (),
    }
    return render(request, "queue/confirm.html", context)


def _carry_out(
    request: HttpRequest, name: str, ids: list[UUID], leases: list[int] | None, back: str
) -> HttpResponse:
    verb = VERBS[name]
    try:
        asked = _asked_for(request, name, verb)
        if verb.takes_leases:
            asked["leases"] = leases
        if request.POST.get("override") and verb.operation in guards.GUARDED:
            asked["overrides"] = guards.overrides(request.user.has_perm)
        made = verb.act(
            ids,
            actor=request.user.get_username(),
            reason=request.POST.get("reason", ""),
            **asked,
        )
    except OperationError as error:
        messages.error(request, str(error))
        return redirect(back)
    _say(request, verb, made)
    return redirect(back)


def _asked_for(request: HttpRequest, name: str, verb: Verb) -> dict[str, Any]:
    """What the form says beside the tasks and the reason. Raises OperationError for a bad value."""
    if name == "retry":
        return {"dependants": bool(request.POST.get("dependants"))}
    if name == "requeue":
        return {"force": bool(request.POST.get("force"))}
    if verb.field == "priority":
        try:
            return {"priority": int(request.POST.get("priority", ""))}
        except ValueError as error:
            raise OperationError("A priority is a whole number from -100 to 100.") from error
    if verb.field == "queue":
        return {"queue": request.POST.get("queue", "")}
    return {}


def _say(request: HttpRequest, verb: Verb, made: Operation) -> None:
    link = reverse("queue:operation", args=[made.pk])
    text = f"{count(made.done, 'task')} {verb.past}"
    if made.skipped:
        [*notes] = made.items.filter(outcome="skipped").values_list("note", flat=True)[:1]
        text += f", {made.skipped:,} left alone" + (f" ({notes[0]})" if notes else "")
    level = messages.SUCCESS if made.done else messages.WARNING
    messages.add_message(
        request, level, format_html('{}. <a href="{}">What was done</a>', text, link)
    )
