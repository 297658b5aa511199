"""`make reset`: stop the demo of the data folder and empty what OpsConsole keeps there.

The rows of a database that DATABASE_URL names are deleted only with CONFIRM=name-of-the-database.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import environ as django_environ

from opsconsole import doctor, embedded_postgres, postgres_folders
from opsconsole.demo.children import spawn
from opsconsole.demo.database import OWNED_FILE, parsed
from opsconsole.demo.home import (
    BASE_DIR,
    DemoError,
    claimed,
    home_from,
    kept_secret,
    running_demo,
)

DEMO_STOP_SECONDS = 15
# Only what OpsConsole makes: OPSCONSOLE_HOME may name a folder with other things in it.
OURS = (
    "secret_key",
    "razorpay_webhook_secret",
    "stripe_webhook_secret",
    "demo_secret",
    "static",
    "files",
    "mail",
    OWNED_FILE,
)


def main() -> int:
    """Exit code 0 when everything is empty; else 1, after one sentence on stderr."""
    confirmed = os.environ.get("CONFIRM", "")  # from make alone: in .env it would confirm for ever
    django_environ.Env.read_env(BASE_DIR / ".env")
    home, url = home_from(dict(os.environ)), os.environ.get("DATABASE_URL")
    try:
        if url:
            _require_confirmation(url, confirmed)
        elif not home.exists():
            sys.stdout.write(f"{home} does not exist: there is nothing to empty.\n")
            return 0
        _stop_demo(home)
        with claimed(home):
            if url:
                _flush(url, home)
            else:
                _remove_server(home)
            _remove(home / name for name in OURS)
    except (DemoError, embedded_postgres.EmbeddedPostgresError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"OpsConsole keeps nothing in {home} any more.\n")
    return 0


def _require_confirmation(url: str, confirmed: str) -> None:
    database = parsed(url)
    if confirmed != database["NAME"]:
        raise DemoError(
            f"DATABASE_URL is set: to delete every row that OpsConsole has in the database at "
            f"{doctor.place(database)}, run: make reset CONFIRM={database['NAME']}"
        )
    problem = doctor.connection_problem(database)
    if problem:
        raise DemoError(problem)


def _stop_demo(home: Path) -> None:
    deadline = time.monotonic() + DEMO_STOP_SECONDS
    told = None
    while pid := running_demo(home):
        if pid != told:
            os.kill(pid, signal.SIGTERM)  # its lock proves that the pid is still the demo's
            told = pid
        if time.monotonic() > deadline:
            raise DemoError(f"The demo (process {pid}) has not stopped: end it, then try again.")
        time.sleep(0.05)


def _flush(url: str, home: Path) -> None:
    """Empty OpsConsole's tables; those of others stay, and so does the schema."""
    variables = dict(os.environ) | {
        "DATABASE_URL": url,
        "OPSCONSOLE_HOME": str(home),
        "OPSCONSOLE_DEMO": "1",
        "SECRET_KEY": kept_secret(home, "secret_key"),
    }
    for command in (["migrate", "--noinput", "-v", "0"], ["flush", "--noinput", "-v", "0"]):
        if spawn(["manage.py", *command], variables).wait():
            raise DemoError(f"`manage.py {command[0]}` did not work: see its reason above.")
    sys.stdout.write(f"Every row of OpsConsole in {doctor.place(parsed(url))} is deleted.\n")


def _remove_server(home: Path) -> None:
    embedded_postgres.stop(home)
    _remove(postgres_folders.bases(home))
    with contextlib.suppress(OSError):
        postgres_folders.outside(home).rmdir()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise DemoError(f"{path} cannot be removed ({error.strerror}).") from error


if __name__ == "__main__":
    sys.exit(main())
