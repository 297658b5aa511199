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

Under root, where the unprivileged account cannot enter `home`, the folder lies in
/var/tmp instead. The server listens on 127.0.0.1 alone and asks for a password.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from opsconsole import postgres_binaries as binaries
from opsconsole.postgres_binaries import Account, Binaries, EmbeddedPostgresError

__all__ = ["EmbeddedPostgresError", "Server", "running_url", "start", "stop"]

ROLE = DATABASE = "opsconsole"
SUPERVISOR = "postgres_supervisor"
RETRY_SECONDS = 15  # for what passes by itself: a port just taken, a dying server's last processes
READY_SECONDS = 60  # for a living server: recovery after a crash takes a while
LOG_BYTES, LOG_KEPT_BYTES = 10_000_000, 1_000_000
PROC = Path("/proc")
SETTINGS = """\
# Written at each start by opsconsole.embedded_postgres.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = '128MB'
timezone = 'UTC'
log_timezone = 'UTC'
"""
THROWAWAY_SETTINGS = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"


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
        base = _make_base(home, f"pg{found.major}")
        with _locked(base / "start.lock"):
            return _start(base, found, throwaway)


def running_url(home: Path) -> str | None:
    """The URL of home's server if it is alive, else None. Changes nothing, starts no process."""
    return next((url for base in _bases(home) if (url := _url_if_alive(base))), None)


def stop(home: Path) -> bool:
    """Stop home's server, ending its connections. False: none ran. Touches no other process."""
    stopped = False
    with _plain_errors(home):
        for base in _bases(home):
            with _locked(base / "start.lock"):
                stopped |= _stop(base)
    return stopped


# Folders and files


def _bases(home: Path) -> list[Path]:
    """The folders that hold this home's servers, the one last started first."""
    started = []
    for parent in (home.resolve(), _outside(home)):
        for base in parent.glob("pg[0-9]*"):
            with contextlib.suppress(OSError):
                # A folder of another account's could lead us to a server of theirs.
                if base.lstat().st_uid == os.geteuid():
                    state = base / "server.json"
                    started.append((state.stat().st_mtime if state.exists() else 0.0, base))
    return [base for _, base in sorted(started, reverse=True)]


def _make_base(home: Path, name: str) -> Path:
    """The folder for a major version: inside home, or outside where the account cannot enter."""
    home.mkdir(parents=True, exist_ok=True)
    home = home.resolve()
    base, outside = home / name, _outside(home) / name
    account = binaries.account_for(base / "data")
    if account and not (base / "data").exists():
        enters = binaries.run(["test", "-x", home], account).returncode == 0
        if not enters or (outside / "data").exists():
            base = outside
            base.parent.mkdir(mode=0o711, exist_ok=True)
            found = base.parent.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid or found.st_mode & 0o022:
                raise EmbeddedPostgresError(
                    f"{base.parent} was not made by root: remove it, then start again."
                )
    base.mkdir(exist_ok=True)
    if base.stat().st_uid != os.geteuid():
        raise EmbeddedPostgresError(
            f"{base} belongs to another account: start the server as that account, "
            "or set OPSCONSOLE_HOME to another folder."
        )
    base.chmod(0o711 if account else 0o700)
    return base


def _outside(home: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()
    return Path(f"/var/tmp/opsconsole-{digest[:16]}")  # noqa: S108, _make_base asks who made it


@contextlib.contextmanager
def _plain_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedPostgresError(
            f"OpsConsole cannot keep its database in {home} ({error}): make that folder writable, "
            "or set OPSCONSOLE_HOME to another one."
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _private(path) as file:
        _flock(file, wait=True)
        yield


def _flock(file: IO[Any], *, wait: bool = False) -> bool:
    """Take the file's lock until it is closed in every process that inherits it."""
    import fcntl  # not on Windows, where settings still import this module

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _private(path: Path) -> IO[str]:
    """Open for appending a file that only its owner can read."""
    flags = os.O_APPEND | os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "a+", errors="replace")


def _replace(path: Path, text: str, mode: int = 0o600) -> None:
    """Write the file whole or not at all, whenever we are killed."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with _private(new) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    new.rename(path)


def _password(base: Path, role: str) -> str:
    path = base / f"{role}.password"
    if not path.exists():
        _replace(path, secrets.token_urlsafe(32))
    return path.read_text()


# Processes. The pid in postmaster.pid may since have gone to a stranger, so none is trusted.


def _name(pid: int) -> str | None:
    """The program's name; None if there is no such process, or it is only a zombie."""
    if not (PROC / "self").exists():
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            return "postgres"
        return None
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in "ZX" else name


def _is_ours(pid: int, base: Path) -> bool:
    """Whether the process is a live PostgreSQL in this folder's data."""
    if _name(pid) != "postgres":
        return False
    with contextlib.suppress(OSError):
        return os.readlink(PROC / str(pid) / "cwd") == str(base / "data")
    # No /proc, or a container's root who may not look into another account's process.
    with contextlib.suppress(OSError), (base / "server.lock").open() as lock:
        return not _flock(lock)
    return False


def _pid_lines(base: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (base / "data" / "postmaster.pid").read_text().splitlines()
    return []


def _postmaster(base: Path) -> int | None:
    """The live server's main process."""
    lines = _pid_lines(base)
    pid = int(lines[0]) if lines and lines[0].isdecimal() else 0
    return pid if pid > 1 and _is_ours(pid, base) else None


def _url_if_alive(base: Path) -> str | None:
    try:
        known = json.loads((base / "server.json").read_text())
        return str(known["url"]) if _postmaster(base) else None
    except (OSError, ValueError, KeyError):
        return None


def _becomes_ready(base: Path, pid: int) -> bool:
    """Wait until the server takes connections. False: it ended instead."""
    deadline = time.monotonic() + READY_SECONDS
    while _name(pid):
        lines = _pid_lines(base)
        if len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready":
            return True
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"PostgreSQL is not ready after {READY_SECONDS} s: look into {base}/server.log, "
                "and start again if it is still recovering from a crash."
            )
        time.sleep(0.02)
    return False


# Starting and stopping


def _start(base: Path, found: Binaries, throwaway: bool) -> Server:
    state, data = base / "server.json", base / "data"
    pid = _postmaster(base)
    running = pid is not None and _becomes_ready(base, pid)
    if not running:
        state.unlink(missing_ok=True)
        account = binaries.account_for(data)
        found = binaries.for_account(found, account, base)
        if not (data / "PG_VERSION").exists():
            _initialise(base, found, account, throwaway)
        _launch(base, found, account, throwaway)
    if not state.exists():
        port = int(_pid_lines(base)[3])
        _prepare_database(base, port)
        url = f"postgresql://{ROLE}:{_password(base, ROLE)}@127.0.0.1:{port}/{DATABASE}"
        _replace(state, json.dumps({"url": url, "version": found.version}))
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
    with _private(base / "server.lock") as lock, tempfile.TemporaryFile("w+") as password:
        # initdb inherits the lock: that of a start since killed may still be at work.
        _flock(lock, wait=True)
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        print(_password(base, SUPERVISOR), file=password, flush=True)
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


def _launch(base: Path, found: Binaries, account: Account | None, throwaway: bool) -> None:
    """Start the server and wait until it is ready; try again while that may help."""
    deadline = time.monotonic() + RETRY_SECONDS
    with _private(base / "server.log") as log:
        _shorten(log)
        while True:
            settings = SETTINGS.format(port=_free_port(base))
            settings += THROWAWAY_SETTINGS if throwaway else ""
            _replace(base / "server.conf", settings, mode=0o644)
            said = os.fstat(log.fileno()).st_size
            pid = _postmaster(base) or _spawn(base, found, account, log)
            if pid and _becomes_ready(base, pid):
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        log.seek(said)
        tail = "\n".join(log.read().splitlines()[-15:])
    reason = tail or f"Another PostgreSQL process, perhaps in a container, still uses {base}/data."
    raise EmbeddedPostgresError(
        f"PostgreSQL did not start: put right what {base}/server.log says, then start again.\n"
        + reason
    )


def _spawn(base: Path, found: Binaries, account: Account | None, log: IO[str]) -> int | None:
    """The new server's pid; None while processes of an old one still live.

    The shell lets the server outlive us, in a session of its own, and needs none of the
    quoting of paths that pg_ctl gets wrong. Each process of the server inherits server.lock.
    """
    with _private(base / "server.lock") as lock:
        _end_leftovers(base)
        if not _flock(lock):
            return None
        (base / "data" / "postmaster.pid").unlink(missing_ok=True)
        script = '"$@" </dev/null >&2 & echo $!'
        command = ["/bin/sh", "-c", script, "sh", found.bin / "postgres", "-D", base / "data"]
        options = {"stdout": subprocess.PIPE, "stderr": log, "check": True}
        options |= {"pass_fds": [lock.fileno()], "start_new_session": True}
        return int(binaries.run(command, account, **options).stdout)


def _end_leftovers(base: Path) -> None:
    """End what a killed server left in this data folder: backends busy in a long query."""
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            at = os.readlink(process / "cwd")
            if at == str(base / "data") and _name(int(process.name)) == "postgres":
                os.kill(int(process.name), signal.SIGQUIT)


def _free_port(base: Path) -> int:
    """The port of the last time if nobody has taken it, else one that is free now."""
    conf = base / "server.conf"
    last = re.findall(r"^port = (\d+)$", conf.read_text(), re.MULTILINE) if conf.exists() else []
    for port in (*map(int, last), 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            # As PostgreSQL does: the last server's connections may linger on the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise EmbeddedPostgresError(
        "PostgreSQL cannot listen on 127.0.0.1: allow that, or set DATABASE_URL to a server."
    )


def _shorten(log: IO[str]) -> None:
    size = os.fstat(log.fileno()).st_size
    if size > LOG_BYTES:
        tail = os.pread(log.fileno(), LOG_KEPT_BYTES, size - LOG_KEPT_BYTES)
        log.truncate(0)
        os.write(log.fileno(), tail)


def _prepare_database(base: Path, port: int) -> None:
    """Make the application's role and database, or what is missing of them."""
    import psycopg  # slow, and running_url has no need of it

    # Spelt out, since psycopg takes what is not from PG* variables.
    where = f"host=127.0.0.1 hostaddr=127.0.0.1 port={port} sslmode=disable gssencmode=disable"
    who = f"user={SUPERVISOR} password={_password(base, SUPERVISOR)} dbname=postgres options=''"
    role, password = ROLE.encode(), _password(base, ROLE).encode()
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
            f"PostgreSQL runs but did not let us prepare the database ({str(error).strip()}): "
            f"restore {base}/{SUPERVISOR}.password, or remove {base} to begin with an empty one."
        ) from error


def _stop(base: Path) -> bool:
    pid = _postmaster(base)
    if not pid:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
    deadline = time.monotonic() + READY_SECONDS
    while _name(pid):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"PostgreSQL is still shutting down after {READY_SECONDS} s: look into "
                f"{base}/server.log, then stop it again."
            )
        time.sleep(0.02)
    (base / "server.json").unlink(missing_ok=True)
    return True


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
