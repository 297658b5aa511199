"""The task that does nothing: only its start is written down."""

from benchlog import record

from queues.registry import handles


@handles("noop")
def noop(ctx):
    record(ctx.payload["seq"])
