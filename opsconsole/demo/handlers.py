"""The demo's own task types. Each does real work on what the demo made; none only sleeps."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import zipfile
from typing import Any

from django.core.files.storage import default_storage
from django.core.mail import EmailMessage

from queues.models import Task
from queues.registry import handles
from queues.retry import Fail
from queues.worker.context import TaskContext

SEGMENT = 500_000


@handles("demo.count_primes", timeout=300)
def count_primes(ctx: TaskContext) -> dict[str, int]:
    """A long task with real progress: how many primes there are up to payload["limit"]."""
    limit = int(ctx.payload["limit"])
    small = _primes_up_to(math.isqrt(limit))
    found = 0
    for low in range(2, limit + 1, SEGMENT):
        high = min(low + SEGMENT - 1, limit)
        sieve = bytearray(b"\x01") * (high - low + 1)
        for prime in small:
            start = max(prime * prime, -(-low // prime) * prime)
            sieve[start - low :: prime] = bytes(len(range(start, high + 1, prime)))
        found += sum(sieve)
        ctx.progress(100 * high / limit, f"{found:,} primes up to {high:,}")
    return {"limit": limit, "primes": found}


def _primes_up_to(limit: int) -> list[int]:
    sieve = bytearray(b"\x01") * (limit + 1)
    for n in range(2, math.isqrt(limit) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit + 1, n)))
    return [n for n in range(2, limit + 1) if sieve[n]]


@handles("demo.verify_export", max_attempts=3)
def verify_export(ctx: TaskContext) -> dict[str, Any]:
    """Second link of the chain: open the file that the export made and check it by its manifest."""
    export = Task.objects.get(pk=ctx.payload["export"])
    if not export.output_location:
        raise Fail(f"Task {export.id} made no file.")
    with default_storage.open(export.output_location) as file, zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        [name] = [name for name in archive.namelist() if name.endswith(".csv")]
        content = archive.read(name)
    rows = sum(1 for _ in csv.reader(io.StringIO(content.decode()))) - 1
    if hashlib.sha256(content).hexdigest() != manifest["sha256"] or rows != manifest["row_count"]:
        raise Fail(f"{export.output_location} is not what its manifest says.")
    return {"file": export.output_location, "rows": rows, "sha256": manifest["sha256"]}


@handles("demo.mail_report", max_attempts=3)
def mail_report(ctx: TaskContext) -> dict[str, Any]:
    """Last link of the chain: tell somebody that the checked file is there."""
    checked = Task.objects.get(pk=ctx.payload["check"]).result or {}
    body = f"{checked['rows']} transactions, checked.\nFile: {checked['file']}\nsha256: {checked['sha256']}\n"
    EmailMessage("Ledger export is ready", body, to=[ctx.payload["to"]]).send()
    return {"mailed_to": ctx.payload["to"]}


@handles("demo.reconcile_partner", max_attempts=5, backoff=0.5)
def reconcile_partner(ctx: TaskContext) -> dict[str, Any]:
    """Fails twice, then succeeds: the partner's books close only at the third asking."""
    if ctx.attempt < 3:
        raise ConnectionError(f"partner books are still open (asked {ctx.attempt} times)")
    statement = sorted(range(1, 2001), key=lambda n: hashlib.sha256(str(n).encode()).digest())
    return {"lines": len(statement), "first": statement[0], "asked": ctx.attempt}


@handles("demo.print_invoice", max_attempts=3, backoff=0.5)
def print_invoice(ctx: TaskContext) -> None:
    """Always fails: its data is wrong, which no retry mends."""
    address = ctx.payload.get("billing_address")
    if not address:
        raise ValueError(f"invoice {ctx.payload['invoice']} has no billing address")
