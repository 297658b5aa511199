"""What can be exported: sources, each a table with its columns and filters.

An app adds its own in a module named `exports`, which is imported at the first export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.module_loading import autodiscover_modules

from queues.clean import dumps
from queues.models import AnyTask, Task
from queues.redaction import redact

# Queues of the built-in handlers and how many of their tasks run at once, over all workers.
QUEUE_CAPS = {"proof": 3}


@dataclass(frozen=True)
class Column:
    """One column of the CSV. `field` is the model's name for it where that differs.

    `clean` is called with each value. A column that is `large` (each value may be as large as
    1 MiB) is read in small chunks. One that is `on_request` is left out unless it is named.
    """

    name: str
    field: str = ""
    clean: Callable[[Any], Any] | None = None
    large: bool = False
    on_request: bool = False


@dataclass(frozen=True)
class Filter:
    """One key of the filter: `read` turns the JSON value into what `lookup` compares with.

    `read` raises ValueError; `expects` completes the sentence "... must be". `many`: a list of
    values is understood too, and the rows that equal any of them match.
    """

    lookup: str
    expects: str
    read: Callable[[Any], Any]
    many: bool = True

    def condition(self, value: Any) -> tuple[str, Any]:
        """The lookup and its argument. Raises ValueError saying what is expected."""
        expects = f"{self.expects}, or a list of such" if self.many else self.expects
        try:
            if not self.many:
                return self.lookup, self.read(value)
            values = value if isinstance(value, list) else [value]
            if values:
                return f"{self.lookup}__in", [self.read(item) for item in values]
        except (ValueError, TypeError, AttributeError, OverflowError):
            pass
        raise ValueError(f"must be {expects}")


@dataclass(frozen=True)
class Source:
    name: str
    model: type[Model]
    columns: Mapping[str, Column]
    filters: Mapping[str, Filter]
    permission: str

    def rows(self, filter: Mapping[str, Any]) -> QuerySet[Any]:
        """The rows that match, in the order of their ids. Raises ValueError, naming the key."""
        conditions: dict[str, Any] = {}
        for key, value in filter.items():
            if key not in self.filters:
                raise ValueError(
                    f"{self.name} cannot be filtered by {key!r}, only by {', '.join(self.filters)}."
                )
            try:
                lookup, argument = self.filters[key].condition(value)
            except ValueError as error:
                raise ValueError(f"The filter {key!r} {error}; it is {value!r:.100}.") from None
            conditions[lookup] = argument
        return self.model._default_manager.filter(**conditions).order_by("pk")


_sources: dict[str, Source] = {}


def register_source(
    name: str,
    model: type[Model],
    columns: Iterable[Column | str],
    filters: Mapping[str, Filter],
    permission: str = "",
) -> None:
    """Offer a table for export under `name`. Its primary key must sort: rows are read in its order.

    A column given as a text is the model's field of that name. Who holds `permission` (default: to
    view the model) may download what was exported. Raises ImproperlyConfigured when
    another model has the name.
    """
    known = _sources.get(name)
    if known is not None and known.model is not model:
        raise ImproperlyConfigured(f"The export source {name!r} is registered twice.")
    made = [Column(column) if isinstance(column, str) else column for column in columns]
    permission = permission or f"{model._meta.app_label}.view_{model._meta.model_name}"
    columns_by_name = {column.name: column for column in made}
    _sources[name] = Source(name, model, columns_by_name, dict(filters), permission)


def sources() -> Mapping[str, Source]:
    """Every registered source by name."""
    autodiscover_modules("exports")
    return _sources


def text_filter(lookup: str) -> Filter:
    return Filter(lookup, "a text", _text)


def choice_filter(lookup: str, choices: Iterable[str]) -> Filter:
    known = list(choices)
    return Filter(lookup, f"one of {', '.join(known)}", lambda value: known[known.index(value)])


def id_filter(lookup: str) -> Filter:
    return Filter(lookup, "an id (a UUID)", UUID)


def moment_filter(lookup: str) -> Filter:
    expects = 'a date or moment such as "2026-12-24" or "2026-12-24T18:00:00Z"'
    return Filter(lookup, expects, _moment, many=False)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _moment(value: str) -> datetime:
    """Without an offset it is in settings.TIME_ZONE; a date alone is its midnight."""
    moment = parse_datetime(value)
    if moment is None and (day := parse_date(value)):
        moment = datetime.combine(day, time())
    if moment is None:
        raise ValueError(value)
    aware = timezone.make_aware(moment) if timezone.is_naive(moment) else moment
    return aware.astimezone(UTC)


register_source(
    "tasks",
    AnyTask,
    columns=[
        "id",
        Column("queue", field="queue_id"),
        "type",
        "status",
        "priority",
        "tenant_id",
        "attempts",
        "created_at",
        "started_at",
        "completed_at",
        "worker_id",
        "error",
        "correlation_id",
        Column("payload", clean=lambda value: dumps(redact(value)), large=True, on_request=True),
    ],
    filters={
        "status": choice_filter("status", Task.Status.values),
        "queue": text_filter("queue_id"),
        "type": text_filter("type"),
        "tenant_id": text_filter("tenant_id"),
        "id": id_filter("id"),
        "created_after": moment_filter("created_at__gte"),
        "created_before": moment_filter("created_at__lt"),
    },
    permission="queue.view_task",
)
