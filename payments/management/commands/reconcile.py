from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse
from django.utils.dateparse import parse_date, parse_datetime

from payments.models import Reconciliation, ReconciliationRow
from payments.providers.base import NotConfigured, ProviderError, UnknownProvider, load
from payments.reconcile import FINDINGS, left_out, now, reconcile
from payments.statements import BadStatement, reconcile_statement
from queues.task_lines import opened

ACTOR = "manage.py reconcile"
FOUND = 2
MOST_LINES = 1000
_AGO = re.compile(r"([0-9]{1,4})([dh])")


class Command(BaseCommand):
    help = (
        "Compare the ledger with the providers' books, or with a statement from a CSV file. Exit"
        " status: 0 when all agrees, 2 when a person must look: there are differences that nobody has"
        " dealt with, or not everything could be looked at; 1 when something failed."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # Its own exit status for a wrong option is the one that says differences here.
        parser.error = lambda message: parser.exit(1, f"{message}\n")  # type: ignore[method-assign]
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--provider",
            action="append",
            metavar="NAME",
            help="may be given several times; default: every provider whose API key is set",
        )
        parser.add_argument(
            "--since",
            help="a date or moment (UTC unless it says otherwise), or 3d or 12h ago; default:"
            " PAYMENTS_RECONCILE_DAYS days before the end",
        )
        parser.add_argument("--until", help="in the same way; default: now")
        parser.add_argument(
            "--statement", metavar="FILE", help='a CSV file; "-" reads standard input'
        )
        parser.add_argument(
            "--minor-units",
            action="store_true",
            help="the statement's amounts are in paisa or cents, not in rupees or dollars",
        )

    def handle(self, **options: Any) -> None:
        at = now()
        until = _moment("--until", options["until"], at)
        since = _moment("--since", options["since"], at)
        if since and since >= (until or at):
            raise CommandError("--since lies after the end of the span.")
        try:
            if options["statement"] is None:
                found = self._ask(options, since, until or at)
            else:
                found = self._read(options, since, until)
        except (UnknownProvider, BadStatement) as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}.") from error
        if found:
            sys.exit(FOUND)

    def _ask(self, options: dict[str, Any], since: datetime | None, until: datetime) -> bool:
        """Compare with each provider's books; whether a person must look."""
        if options["minor_units"]:
            raise CommandError("--minor-units is for --statement: providers tell it themselves.")
        named = options["provider"] or []
        names = named or [name for name in settings.PAYMENT_PROVIDERS if load(name).has_key()]
        if not names:
            raise CommandError(
                "No provider has an API key here: set RAZORPAY_KEY_ID and RAZORPAY_KEY_SECRET, or"
                " STRIPE_API_KEY, or compare with a statement."
            )
        since = since or until - timedelta(days=settings.PAYMENTS_RECONCILE_DAYS)
        found = False
        failed = []
        for name in dict.fromkeys(names):
            try:
                found |= self._report(reconcile(name, since, until, ACTOR))
            except (NotConfigured, ProviderError) as error:
                failed.append(str(error))
        if failed:
            raise CommandError("\n".join(failed))
        return found

    def _read(
        self, options: dict[str, Any], since: datetime | None, until: datetime | None
    ) -> bool:
        """Compare with a statement; whether a person must look."""
        names = options["provider"] or []
        if len(names) != 1:
            raise CommandError("Say whose statement it is: --provider NAME, once.")
        with opened(options["statement"]) as file:
            run = reconcile_statement(
                names[0],
                file,
                options["statement"],
                ACTOR,
                minor_units=options["minor_units"],
                since=since,
                until=until,
            )
        return self._report(run)

    def _report(self, run: Reconciliation) -> bool:
        """Print what was found; whether a person must look."""
        write: Callable[[str], None] = self.stdout.write
        write(_title(run))
        for name in FINDINGS:
            write(f"  {_words(name):<14}{getattr(run, name):>10,}")
        if told := left_out(run):
            write(f"  Not everything was looked at: {told}")
        rows = run.rows.defer("ours", "theirs").order_by("id")
        for row in rows[:MOST_LINES]:
            write("  " + _line(row))
        total = rows.count()
        if total > MOST_LINES:
            write(f"  and {total - MOST_LINES:,} more")
        if total:
            write(f"  See {reverse('payments:reconciliation', args=[run.pk])} in the console.")
        waiting = ReconciliationRow.objects.filter(provider=run.provider, handled_at__isnull=True)
        if earlier := waiting.exclude(reconciliation=run).count():
            url = f"{reverse('payments:differences')}?{urlencode({'provider': run.provider})}"
            write(f"  open of earlier comparisons: {earlier:,}. See {url} in the console.")
        return bool(told) or waiting.exists()


def _title(run: Reconciliation) -> str:
    span = [
        f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" for moment in (run.since, run.until) if moment
    ]
    whose = f"{run.provider}, statement {run.name}" if run.name else run.provider
    return f"{whose}, {' to '.join(span)} UTC" if span else whose


def _line(row: ReconciliationRow) -> str:
    what = " ".join(part for part in (row.order_id, row.payment_id) if part)
    aside = f" (set aside by {row.handled_by})" if row.handled_at else ""
    return f"{_words(row.finding)}: {what}: {row.difference}{aside}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _moment(option: str, text: str | None, at: datetime) -> datetime | None:
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        number, unit = int(ago[1]), ago[2]
        return at - (timedelta(days=number) if unit == "d" else timedelta(hours=number))
    try:
        moment = parse_datetime(text)
        if moment is None and (day := parse_date(text)):
            moment = datetime.combine(day, time())
    except ValueError:
        moment = None
    if moment is None or not 1970 < moment.year < 9999:
        raise CommandError(
            f"{option} is {text!r}: write 2026-11-01, 2026-11-01T18:00:00Z, or 3d for three days ago."
        )
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
