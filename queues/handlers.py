"""The built-in task types."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from queues import export_task
from queues.registry import handles

if TYPE_CHECKING:
    from queues.worker.context import TaskContext

handles("export", queue="proof", max_attempts=3, timeout=timedelta(hours=1))(export_task.export)


# Longer than the longest timeout of a request.
@handles("http_request", timeout=timedelta(minutes=6))
def http_request(ctx: "TaskContext") -> dict[str, Any]:
    # Here, because importing httpx takes every command more than a tenth of a second.
    from queues.http_request import send

    return send(ctx)
