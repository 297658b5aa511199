"""`make demo`: everything OpsConsole needs, started in order, watched, and stopped together."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import environ as django_environ

from opsconsole.demo.children import Service, spawn, stop_all
from opsconsole.demo.database import Database, open_database, stop_leftover
from opsconsole.demo.home import BASE_DIR, DemoError, claimed, home_from, kept_secret

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY_SECONDS = 60
CHILDREN_STOP_SECONDS = 6.5  # then they are killed: all must be over within 10 s
STOP_SECONDS = 9.0
USER = "ops"
PRINTED_BEFORE = "as printed at the first start (make reset, or manage.py changepassword ops)"


class Stopped(BaseException):
    """We were told to stop before anything ran that must be stopped in order."""


def main() -> int:
    """Run the demo until a signal ends it: 0. 1 if it cannot run, after one sentence on stderr."""
    for number in SIGNALS:
        signal.signal(number, _raise_stopped)
    try:
        django_environ.Env.read_env(BASE_DIR / ".env")
        settings = dict(os.environ)
        home, port = home_from(settings), _port(settings.get("PORT") or "8000")
        with claimed(home):
            _refuse_taken(port)
            _run(home, port, settings)
    except DemoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Stopped:
        pass
    return 0


def _raise_stopped(number: int, frame: object) -> NoReturn:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped


def _run(home: Path, port: int, settings: dict[str, str]) -> None:
    _say("OpsConsole is starting.")
    try:
        database = open_database(settings.get("DATABASE_URL"), home)
        demo = Demo(home, port, settings | {"DATABASE_URL": database.url}, database)
    except BaseException:
        stop_leftover(home)
        raise
    try:
        demo.run()
    finally:
        demo.end()


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise DemoError(f"PORT={text} is not a port: give a number from 1 to 65535.")


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # As the web server does: the last one's connections may linger on the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"Port {port} cannot be used ({error.strerror}): stop what listens there, "
                f"or choose another, as in: make demo PORT={port % 65535 + 1}"
            ) from error


def child_environ(home: Path, port: int, settings: dict[str, str]) -> dict[str, str]:
    """What the programs get: our environment, and what the demo fills in where it says nothing."""
    defaults = {
        "SECRET_KEY": kept_secret(home, "secret_key"),
        "RAZORPAY_WEBHOOK_SECRETS": kept_secret(home, "razorpay_webhook_secret"),
        "STRIPE_WEBHOOK_SECRETS": kept_secret(home, "stripe_webhook_secret"),
        "PAYMENTS_UNEXPECTED": "hold",
        "OPSCONSOLE_SECRET_DEMO": kept_secret(home, "demo_secret"),
        "HTTP_REQUEST_ALLOWED_HOSTS": f"127.0.0.1:{port}",
        "LOG_LEVEL": "WARNING",
    }
    ours = {
        "OPSCONSOLE_HOME": str(home),
        "OPSCONSOLE_DEMO": "1",
        "PORT": str(port),
        "DJANGO_SETTINGS_MODULE": "opsconsole.settings",
        "PYTHONUNBUFFERED": "1",
    }
    given = {key: value for key, value in settings.items() if value}
    return defaults | given | ours


class Demo:
    """The programs of one demo, over a database that is ready. From here on signals set a flag."""

    def __init__(self, home: Path, port: int, settings: dict[str, str], database: Database) -> None:
        self.home = home
        self.database = database
        self.port = port
        self.environ = child_environ(home, port, settings)
        self.url = f"http://127.0.0.1:{port}/"
        self.stopping = threading.Event()
        self.services: list[Service] = []
        self.password: str | None = None
        for number in SIGNALS:
            signal.signal(number, lambda *_: self.stopping.set())

    def run(self) -> None:
        """Prepare the database, start the programs, and watch them until told to stop."""
        self._command("migrate", "--noinput", "--verbosity", "0")
        self.password = _password_in(self._command("demo_setup"))
        if not self.stopping.is_set():
            self._start_services()
        deadline = time.monotonic() + READY_SECONDS
        while not self.stopping.wait(0.1) and not self._answers():
            self._tend()
            if time.monotonic() > deadline:
                raise DemoError(f"No answer from {self.url} in {READY_SECONDS} s: see above why.")
        if not self.stopping.is_set():
            self._say_ready()
        while not self.stopping.wait(0.2):
            self._tend()

    def end(self) -> None:
        """Stop everything that is ours, in time whatever it does."""
        began = time.monotonic()
        if self.services:
            _say("OpsConsole is stopping.")
        stop_all([service.process for service in self.services], CHILDREN_STOP_SECONDS)
        self.database.stop(began + STOP_SECONDS - time.monotonic())
        if self.password:
            _say(f"The user {USER} was made with the password: {self.password}")
        if self.services:
            _say("OpsConsole has stopped.")

    def _command(self, *arguments: str) -> str:
        """What the command of manage.py prints; nothing if we are told to stop meanwhile."""
        process = spawn(["manage.py", *arguments], self.environ, stdout=subprocess.PIPE)
        try:
            while not self.stopping.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    output, _ = process.communicate(timeout=0.1)
                    break
            else:
                return ""
        finally:
            stop_all([process], CHILDREN_STOP_SECONDS / 2)
        if process.returncode:
            raise DemoError(f"`manage.py {arguments[0]}` did not work: see its reason above.")
        return output

    def _start_services(self) -> None:
        web = ["-m", "gunicorn", "opsconsole.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        web += ["--workers", "2", "--worker-class", "gthread", "--threads", "4"]
        web += ["--graceful-timeout", "4", "--log-level", "warning", "--no-control-socket"]
        worker = ["manage.py", "runworker", "--grace", "5"]
        self.services.append(Service("web server", web, self.environ, give_up_after=3))
        self.services.append(Service("worker", worker, self.environ))

    def _tend(self) -> None:
        self.database.tend()
        for service in self.services:
            service.tend()

    def _answers(self) -> bool:
        """Whether the web server serves; that much is true of a redirect or a refusal, too."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _say_ready(self) -> None:
        _say(f"OpsConsole is ready: {self.url}")
        _say(f"  user: {USER}")
        _say(f"  password: {self.password or PRINTED_BEFORE}")
        _say("  Ctrl-C stops it; make demo continues with the same data, make reset empties it.")
        self.password = None


def _password_in(output: str) -> str | None:
    """The password in the line that demo_setup ends with."""
    last = output.strip().rpartition("\n")[2]
    password = json.loads(last)["password"] if last else None
    return str(password) if password else None


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
