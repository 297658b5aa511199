"""Filters of the templates of payments."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.console import story
from payments.models import Transaction
from payments.money import format_amount

register = template.Library()

# A payment that failed is no task that failed: nobody must act.
WORDS = {
    "late": "not fulfilled",
    "due": "on its way",
    "payment_failed": "failed",
    "partial": "in part",
}


@register.filter
def state(value: str) -> SafeString:
    """A verdict, a finding or what was given, as icon and word in its one colour."""
    return format_html(
        '<span class="status status-{}"><svg aria-hidden="true" class="icon"><use href="#icon-{}"/></svg>{}</span>',
        value,
        value,
        WORDS.get(value, value.replace("_", " ")),
    )


@register.filter
def payment_state(value: str) -> SafeString:
    """The status of a payment."""
    return state("payment_failed" if value == Transaction.Status.FAILED else value)


@register.filter
def amount(row: Transaction) -> str:
    return format_amount(row.amount, row.currency)


@register.filter
def money(minor_units: int, currency: str) -> str:
    return format_amount(minor_units, currency)


@register.filter
def gone_back(row: Transaction) -> str:
    """What was given back, if anything was."""
    return format_amount(row.refunded, row.currency) if row.refunded else ""


@register.filter
def given(row: Transaction) -> SafeString | str:
    """Whether the order was fulfilled; nothing where no money came, or none is left."""
    if row.fulfilled_at:
        return state("fulfilled")
    if not story.is_due(row):
        return ""
    if row.held_at:
        return state("held")
    return state("late" if story.is_late(row) else "due")
