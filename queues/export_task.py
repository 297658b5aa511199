"""The `export` task: matching rows as a CSV in a ZIP, with a manifest that proves what it holds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db.models import QuerySet
from django.utils import timezone

from queues import claims
from queues.clean import dumps
from queues.exports import Column, Source, sources
from queues.retry import Fail, LostLease

if TYPE_CHECKING:
    from queues.worker.context import TaskContext

CHUNK_ROWS = 2000
CHUNK_ROWS_LARGE = 50
MOST_COUNTED = 1_000_000
KEYS = ("source", "filter", "columns")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Plan:
    """A payload that was checked: what to read."""

    source: Source
    filter: dict[str, Any]
    columns: list[Column]
    rows: QuerySet[Any]


def export(ctx: TaskContext) -> dict[str, Any]:
    """Write the rows that the payload asks for to the storage, as exports/<task id>.zip.

    Rows are read in chunks, each its own short statement: an export never holds a transaction open
    and never holds more than one chunk in memory. It sees the rows that exist when it begins, each
    as it is when its chunk is read. Raises Fail for a payload that asks for what there is not.
    """
    plan = read_plan(ctx.payload)
    # Without a name on the disk it vanishes with the process, however that ends.
    with tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR) as file:
        count, sha256 = _write_zip(file, plan, ctx)
        size = file.tell()
        name = _save(file, ctx)
    ctx.output_location = name
    return {"rows": count, "sha256": sha256, "file": name, "bytes": size}


def read_plan(payload: Any) -> Plan:
    """Check the payload of an export. Raises Fail with a sentence that lists what is possible."""
    if not isinstance(payload, dict):
        raise Fail(f"The payload must be an object with the keys {', '.join(KEYS)}.")
    if unknown := sorted(set(payload) - set(KEYS)):
        raise Fail(f"Unknown key {unknown[0]!r}; an export has {', '.join(KEYS)}.")
    known = sources()
    source = known.get(name) if isinstance(name := payload.get("source"), str) else None
    if source is None:
        raise Fail(f"There is no source {name!r}. Sources: {', '.join(sorted(known))}.")
    filter = payload.get("filter") or {}
    if not isinstance(filter, dict):
        raise Fail(f"The filter must be an object with keys of {', '.join(source.filters)}.")
    try:
        rows = source.rows(filter)
    except ValueError as error:
        raise Fail(str(error)) from None
    return Plan(source, filter, _columns(source, payload.get("columns")), rows)


def _columns(source: Source, names: Any) -> list[Column]:
    if names is None:
        return [column for column in source.columns.values() if not column.on_request]
    possible = f"Columns of {source.name}: {', '.join(source.columns)}."
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Fail(f"The columns must be a list of names. {possible}")
    if unknown := [name for name in names if name not in source.columns]:
        raise Fail(f"There is no column {unknown[0]!r}. {possible}")
    if len(set(names)) < len(names):
        raise Fail("A column is named twice.")
    return [source.columns[name] for name in names]


def _write_zip(file: IO[bytes], plan: Plan, ctx: TaskContext) -> tuple[int, str]:
    """The CSV while it is hashed, then the manifest. Gives the number of rows and the hash."""
    made_at = timezone.now()
    digest = hashlib.sha256()
    count = 0
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        with archive.open(f"{plan.source.name}.csv", "w", force_zip64=True) as entry:
            for rows, text in _chunks(plan, ctx):
                count += rows
                digest.update(text)
                entry.write(text)
        manifest = {
            "source": plan.source.name,
            "filter": plan.filter,
            "columns": [column.name for column in plan.columns],
            "row_count": count,
            "file": f"{plan.source.name}.csv",
            "sha256": digest.hexdigest(),
            "made_at": _cell(made_at),
            "task_id": str(ctx.id),
        }
        archive.writestr("manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return count, digest.hexdigest()


def _chunks(plan: Plan, ctx: TaskContext) -> Iterator[tuple[int, bytes]]:
    """The CSV in pieces, each with its number of rows; the first is the line of names."""
    yield 0, _csv([[column.name for column in plan.columns]])
    ctx.progress(0, "counting")
    newest = plan.source.model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
    if newest is None:
        return
    # What is added from here on has a higher id: a busy table cannot keep the export running.
    rows = plan.rows.filter(pk__lte=newest)
    total = _about(rows)
    size = CHUNK_ROWS_LARGE if any(column.large for column in plan.columns) else CHUNK_ROWS
    values = rows.values_list("pk", *(column.field or column.name for column in plan.columns))
    done = 0
    chunk = list(values[:size])
    while chunk:
        yield len(chunk), _csv([_row(plan.columns, row[1:]) for row in chunk])
        done += len(chunk)
        total = max(total, done)
        ctx.progress(min(99, 100 * done // total), f"{done:,} of about {total:,} rows")
        chunk = list(values.filter(pk__gt=chunk[-1][0])[:size]) if len(chunk) == size else []


def _about(rows: QuerySet[Any]) -> int:
    """How many rows there are; beyond a million, how many the planner expects."""
    count = rows.order_by()[: MOST_COUNTED + 1].count()
    if count <= MOST_COUNTED:
        return count
    plan = json.loads(rows.order_by().explain(format="json"))
    return max(count, int(plan[0]["Plan"]["Plan Rows"]))


def _row(columns: list[Column], values: tuple[Any, ...]) -> list[Any]:
    return [
        _cell(column.clean(value) if column.clean else value)
        for column, value in zip(columns, values, strict=True)
    ]


def _cell(value: Any) -> Any:
    """A value as a cell: moments in ISO 8601 UTC, nested values as JSON, no text a formula."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_STARTS) else value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return dumps(value)
    return value


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _save(file: IO[bytes], ctx: TaskContext) -> str:
    """Keep the file under the task's name, in place of one that an earlier attempt left."""
    ctx.progress(99, "saving the file")
    # Asked of the database itself: a worker that lost the task must not touch the other's file.
    if claims.report_progress(ctx.id, ctx.task.lease, 99, "saving the file") == "stale":
        raise LostLease(f"task {ctx.id} is no longer this worker's")
    name = f"exports/{ctx.id}.zip"
    default_storage.delete(name)
    return default_storage.save(name, File(file))
