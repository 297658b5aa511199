"""A PostgreSQL server of OpsConsole's own, for demos, development and tests.

`start` makes the database at its first call and returns its URL; later calls, from
any process, return the same server. Everything lies in one folder for each major
version of PostgreSQL, `<home>/pg18`:

    data/          PostgreSQL's data folder; under root it belongs to an unprivileged account
    server.conf    our settings, written at each start; data/postgresql.conf includes it
    server.log     what the server says
    server.json    URL and version, there only while the database is ready for use
    server.lock    held by the server's processes for as long as any of them lives
    start.lock     held while somebody starts or stops the server
    *.password     the application role's, and that of the superuser only this module uses

The server listens on 127.0.0.1 alone and asks for a password.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsconsole import postgres_binaries as binaries
from opsconsole import postgres_folders as folders
from opsconsole import postgres_processes as processes
from opsconsole.postgres_binaries import Account, Binaries, EmbeddedPostgresError

__all__ = ["EmbeddedPostgresError", "Server", "running_url", "start", "stop"]

ROLE = DATABASE = "opsconsole"
SUPERVISOR = "postgres_supervisor"
_bases, _outside = folders.bases, folders.outside  # what `make reset` and its tests remove


@dataclass(frozen=True)
class Server:
    """A server ready for use; `started` is False if it was running before the call."""

    url: str
    version: str
    data: Path
    started: bool


def start(home: Path, *, throwaway: bool = False) -> Server:
    """Return home's server, making its database and starting it as needed.

    Safe to call at once from many processes, and after any crash: it completes what
    an earlier call left half done. `throwaway` trades the data's safety in a power
    cut for speed. Raises EmbeddedPostgresError.
    """
    if os.name != "posix":
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL runs on Linux and macOS only: set DATABASE_URL to a server."
        )
    with _plain_errors(home):
        found = binaries.find()
        base = folders.make_base(home, found.major)
        with folders.locked(base / "start.lock"):
            return _start(base, found, throwaway)


def running_url(home: Path) -> str | None:
    """The URL of home's server if it is alive, else None. Changes nothing, starts no process."""
    for base in folders.bases(home):
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads((base / "server.json").read_text())
            if processes.postmaster(base):
                return str(known["url"])
    return None


def stop(home: Path) -> bool:
    """Stop home's server, ending its connections. False: none ran. Touches no other process."""
    stopped = False
    with _plain_errors(home):
        for base in folders.bases(home):
            with folders.locked(base / "start.lock"):
                if processes.end(base):
                    (base / "server.json").unlink(missing_ok=True)
                    stopped = True
    return stopped


@contextlib.contextmanager
def _plain_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedPostgresError(
            f"OpsConsole cannot keep its database in {home} ({error}): make that folder writable, "
            "or set OPSCONSOLE_HOME to another one."
        ) from error


def _start(base: Path, found: Binaries, throwaway: bool) -> Server:
    state, data = base / "server.json", base / "data"
    pid = processes.postmaster(base)
    running = pid is not None and processes.becomes_ready(base, pid)
    if not running:
        state.unlink(missing_ok=True)
        account = binaries.account_for(data)
        found = binaries.for_account(found, account, base)
        if not (data / "PG_VERSION").exists():
            _initialise(base, found, account, throwaway)
        processes.launch(base, found, account, throwaway)
    if not state.exists():
        port = processes.port(base)
        _prepare_database(base, port)
        login = f"{ROLE}:{folders.password(base, ROLE)}"
        url = f"postgresql://{login}@127.0.0.1:{port}/{DATABASE}"
        folders.replace(state, json.dumps({"url": url, "version": found.version}))
    known = json.loads(state.read_text())
    return Server(known["url"], known["version"], data, started=not running)


def _initialise(base: Path, found: Binaries, account: Account | None, throwaway: bool) -> None:
    """Make the data folder; it gets its name only when complete."""
    new = base / "data.new"
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command = [found.bin / "initdb", "-D", new, "-U", SUPERVISOR, "-E", "UTF8"]
    command += locale if found.major >= 17 else ["--locale=C.UTF-8"]
    command += ["--auth=scram-sha-256", "--pwfile=/dev/stdin", "--no-instructions"]
    command += ["--no-sync"] if throwaway else []
    with folders.private(base / "server.lock") as lock, tempfile.TemporaryFile("w+") as password:
        # initdb inherits the lock: that of a start since killed may still be at work.
        folders.flock(lock, wait=True)
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        print(folders.password(base, SUPERVISOR), file=password, flush=True)
        password.seek(0)
        if account:
            os.chown(new, account.uid, account.gid)
            os.fchown(password.fileno(), account.uid, account.gid)
        options = {"stdin": password, "capture_output": True, "pass_fds": [lock.fileno()]}
        done = binaries.run(command, account, **options)
    if done.returncode:
        raise EmbeddedPostgresError(
            "PostgreSQL could not make its data folder: put right what it says below, "
            f"then start again.\n{done.stderr.strip()}"
        )
    # Written as the account, so that root follows no link which the account planted.
    conf, line = new / "postgresql.conf", "\ninclude '../server.conf'\n"
    binaries.run(["tee", "-a", conf], account, input=line, capture_output=True, check=True)
    new.rename(base / "data")


def _prepare_database(base: Path, port: int) -> None:
    """Make the application's role and database, or what is missing of them."""
    import psycopg  # slow, and running_url has no need of it

    # Spelt out, since psycopg takes what is not from PG* variables.
    where = f"host=127.0.0.1 hostaddr=127.0.0.1 port={port} sslmode=disable gssencmode=disable"
    secret = folders.password(base, SUPERVISOR)
    who = f"user={SUPERVISOR} password={secret} dbname=postgres options=''"
    role, password = ROLE.encode(), folders.password(base, ROLE).encode()
    try:
        with psycopg.connect(f"{where} {who} connect_timeout=10", autocommit=True) as connection:
            run = connection.execute
            verifier = connection.pgconn.encrypt_password(password, role, b"scram-sha-256")
            if not run("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
                run(f"CREATE ROLE {ROLE}")
            attributes = f"LOGIN NOSUPERUSER CREATEDB CREATEROLE PASSWORD '{verifier.decode()}'"
            run(f"ALTER ROLE {ROLE} {attributes}")
            run(f"GRANT pg_monitor TO {ROLE}")
            if not run("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                run(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    except psycopg.Error as error:
        raise EmbeddedPostgresError(
            "PostgreSQL runs but did not let us prepare its database: restore "
            f"{base}/{SUPERVISOR}.password, or remove {base} to begin with an empty one."
            f"\n{str(error).strip()}"
        ) from error


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 if done, 1 if no server runs or it cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m opsconsole.embedded_postgres")
    parser.add_argument("verb", choices=["start", "stop", "url"])
    parser.add_argument("home", type=Path)
    parser.add_argument("--throwaway", action="store_true", help="faster, unsafe in a power cut")
    given = parser.parse_args(arguments)
    try:
        if given.verb == "stop":
            answer = "stopped" if stop(given.home) else None
        elif given.verb == "start":
            answer = start(given.home, throwaway=given.throwaway).url
        else:
            answer = running_url(given.home)
    except EmbeddedPostgresError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{answer or 'not running'}\n")
    return 0 if answer else 1


if __name__ == "__main__":
    sys.exit(main())
