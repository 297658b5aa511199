"""The demo's data folder: its secrets, and the file that says which demo runs on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent.parent
PID_FILE = "demo.pid"


class DemoError(Exception):
    """The demo cannot run; the message says what to do about it."""


def home_from(environ: dict[str, str]) -> Path:
    """The data folder that the environment names, as the settings have it."""
    return Path(environ.get("OPSCONSOLE_HOME") or BASE_DIR / "var").absolute()


@contextlib.contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Hold the data folder, made if it is missing, as its only demo."""
    try:
        home.joinpath("static").mkdir(parents=True, exist_ok=True)  # the web server asks for it
        file = _locked(home)
    except OSError as error:
        raise DemoError(
            f"OpsConsole cannot write to {home} ({error.strerror}): make that folder writable, "
            "or set OPSCONSOLE_HOME to another one."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (home / PID_FILE).unlink()
        os.close(file)


def _locked(home: Path) -> int:
    """demo.pid with our pid in it, under lock. DemoError: another demo has it."""
    path = home / PID_FILE
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The demo that had it may have removed it between our open and our lock.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()}\n".encode())
                return file
        except BlockingIOError as error:
            pid = os.read(file, 20).decode().strip()
            os.close(file)
            raise DemoError(
                f"A demo already runs on {home} (process {pid}): stop it first, "
                "or set OPSCONSOLE_HOME to another folder."
            ) from error
        os.close(file)


def running_demo(home: Path) -> int | None:
    """The pid of the demo that holds the data folder now; None if there is none."""
    with contextlib.suppress(OSError, ValueError), (home / PID_FILE).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read())
    return None


def kept_secret(home: Path, name: str) -> str:
    """The secret of that name, made at the first call; only its owner can read the file."""
    path = home / name
    try:
        if not path.exists():
            new = path.with_name(f"{name}.new")
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(48))
            new.rename(path)
        return path.read_text().strip()
    except OSError as error:
        raise DemoError(
            f"OpsConsole cannot keep its secret in {path} ({error.strerror}): make it readable and "
            "its folder writable, or set OPSCONSOLE_HOME to another folder."
        ) from error
