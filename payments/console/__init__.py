"""What payments add to the console: their pages, verdicts, and a panel on the pages of their tasks."""

from __future__ import annotations


def connect() -> None:
    """Plug payments into the console."""
    from payments import guards
    from payments.console import panel, verdicts
    from queues.console import context

    guards.connect()
    panel.connect()
    verdicts.connect()
    context.add_place(context.Place("Payments", "payments:list", "payments.view_transaction"))
