"""The embedded PostgreSQL's processes: finding, starting and ending them.

The pid in postmaster.pid may since have gone to a stranger, so none is trusted.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

from opsconsole import postgres_binaries as binaries
from opsconsole.postgres_binaries import Account, Binaries, EmbeddedPostgresError
from opsconsole.postgres_folders import flock, private, replace

RETRY_SECONDS = 15  # for what passes by itself: a port just taken, a dying server's last processes
READY_SECONDS = 60  # for a living server: recovery after a crash takes a while
LOG_BYTES, LOG_KEPT_BYTES = 10_000_000, 1_000_000
PROC = Path("/proc")
PASSES_BY_ITSELF = re.compile(r'could not bind|is still in use|lock file ".*" already exists')
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


# Finding


def name(pid: int) -> str | None:
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
    program, _, rest = text.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in "ZX" else program


def postmaster(base: Path) -> int | None:
    """The live server's main process."""
    lines = _pid_lines(base)
    pid = int(lines[0]) if lines and lines[0].isdecimal() else 0
    return pid if pid > 1 and _is_ours(pid, base) else None


def port(base: Path) -> int:
    """The running server's; its settings may since name another."""
    return int(_pid_lines(base)[3])


def _is_ours(pid: int, base: Path) -> bool:
    """Whether the process is a live PostgreSQL in this folder's data."""
    if name(pid) != "postgres":
        return False
    with contextlib.suppress(OSError):
        return os.readlink(PROC / str(pid) / "cwd") == str(base / "data")
    # No /proc, or a container's root who may not look into another account's process.
    with contextlib.suppress(OSError), (base / "server.lock").open() as lock:
        return not flock(lock)
    return False


def _pid_lines(base: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (base / "data" / "postmaster.pid").read_text().splitlines()
    return []


# Starting


def launch(base: Path, found: Binaries, account: Account | None, throwaway: bool) -> None:
    """Start the server and wait until it is ready; try again only while that may help."""
    deadline = time.monotonic() + RETRY_SECONDS
    with private(base / "server.log") as log:
        _shorten(log)
        while True:
            settings = SETTINGS.format(port=_free_port(base))
            settings += THROWAWAY_SETTINGS if throwaway else ""
            replace(base / "server.conf", settings, mode=0o644)
            said = os.fstat(log.fileno()).st_size
            running = postmaster(base)
            pid = running or _spawn(base, found, account, log)
            if pid and becomes_ready(base, pid):
                return
            log.seek(said)
            words = log.read()
            failed = pid and not running and not PASSES_BY_ITSELF.search(words)
            if failed or time.monotonic() > deadline:
                break
            time.sleep(0.2)
    if not pid:
        raise EmbeddedPostgresError(
            "PostgreSQL did not start: end the other PostgreSQL process, perhaps in a container, "
            f"that still uses {base}/data, then start again."
        )
    tail = "\n".join(words.splitlines()[-15:])
    raise EmbeddedPostgresError(
        f"PostgreSQL did not start: put right what {base}/server.log says, then start again."
        f"\n{tail}".rstrip()
    )


def becomes_ready(base: Path, pid: int) -> bool:
    """Wait until the server takes connections. False: it ended instead."""
    deadline = time.monotonic() + READY_SECONDS
    while name(pid):
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


def _spawn(base: Path, found: Binaries, account: Account | None, log: IO[str]) -> int | None:
    """The new server's pid; None while processes of an old one still live.

    The shell lets the server outlive us, in a session of its own, and needs none of the
    quoting of paths that pg_ctl gets wrong. Each process of the server inherits server.lock.
    """
    with private(base / "server.lock") as lock:
        _end_leftovers(base)
        if not flock(lock):
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
            if at == str(base / "data") and name(int(process.name)) == "postgres":
                os.kill(int(process.name), signal.SIGQUIT)


def _free_port(base: Path) -> int:
    """The port of the last time if nobody has taken it, else one that is free now."""
    conf = base / "server.conf"
    last = re.findall(r"^port = (\d+)$", conf.read_text(), re.MULTILINE) if conf.exists() else []
    for candidate in (*map(int, last), 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            # As PostgreSQL does: the last server's connections may linger on the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
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


# Ending


def end(base: Path) -> bool:
    """End the server and its connections. False: none ran."""
    pid = postmaster(base)
    if not pid:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
    deadline = time.monotonic() + READY_SECONDS
    while name(pid):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"PostgreSQL is still shutting down after {READY_SECONDS} s: look into "
                f"{base}/server.log, then stop it again."
            )
        time.sleep(0.02)
    return True
