"""The embedded PostgreSQL's folders, and files in them that being killed never leaves half written.

Under root, where the server's unprivileged account cannot enter the home, its folders lie
in /var/tmp instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from opsconsole import postgres_binaries as binaries
from opsconsole.postgres_binaries import EmbeddedPostgresError


def bases(home: Path) -> list[Path]:
    """The folders that hold this home's servers, the one last started first."""
    started = []
    for parent in (home.resolve(), outside(home)):
        for base in parent.glob("pg[0-9]*"):
            with contextlib.suppress(OSError):
                # A folder of another account's could lead us to a server of theirs.
                if base.name[2:].isdecimal() and base.lstat().st_uid == os.geteuid():
                    state = base / "server.json"
                    started.append((state.stat().st_mtime if state.exists() else 0.0, base))
    return [base for _, base in sorted(started, reverse=True)]


def make_base(home: Path, major: int) -> Path:
    """The folder for a major version: inside home, or outside where the account cannot enter."""
    _refuse_other_majors(home, major)
    home.mkdir(parents=True, exist_ok=True)
    home, elsewhere = home.resolve(), outside(home)
    base = home / f"pg{major}"
    account = binaries.account_for(base / "data")
    if account and not (base / "data").exists():
        enters = binaries.run(["test", "-x", home], account).returncode == 0
        if not enters or (elsewhere / base.name / "data").exists():
            base = elsewhere / base.name
            elsewhere.mkdir(mode=0o711, exist_ok=True)
            found = elsewhere.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid or found.st_mode & 0o022:
                raise EmbeddedPostgresError(
                    f"{elsewhere} was not made by root: remove it, then start again."
                )
    base.mkdir(exist_ok=True)
    if base.stat().st_uid != os.geteuid():
        raise EmbeddedPostgresError(
            f"{base} belongs to another account: start the server as that account, "
            "or set OPSCONSOLE_HOME to another folder."
        )
    base.chmod(0o711 if account else 0o700)
    return base


def _refuse_other_majors(home: Path, major: int) -> None:
    """Data of another major version must not silently give way to an empty database."""
    made = [base for base in bases(home) if (base / "data" / "PG_VERSION").exists()]
    if made and f"pg{major}" not in {base.name for base in made}:
        other = made[0].name[2:]
        raise EmbeddedPostgresError(
            f"{made[0]} holds data of PostgreSQL {other}, which PostgreSQL {major} cannot read: "
            f"set OPSCONSOLE_POSTGRES_BIN to the programs of release {other} to go on with it or "
            "to dump it, or move that folder away to begin with an empty database."
        )


def outside(home: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()
    return Path(f"/var/tmp/opsconsole-{digest[:16]}")  # noqa: S108, make_base asks who made it


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with private(path) as file:
        flock(file, wait=True)
        yield


def flock(file: IO[Any], *, wait: bool = False) -> bool:
    """Take the file's lock until it is closed in every process that inherits it."""
    import fcntl  # not on Windows, where settings still import this module

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def private(path: Path) -> IO[str]:
    """Open for appending a file that only its owner can read."""
    flags = os.O_APPEND | os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "a+", errors="replace")


def replace(path: Path, text: str, mode: int = 0o600) -> None:
    """Write the file whole or not at all, whenever we are killed."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with private(new) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    new.rename(path)


def password(base: Path, role: str) -> str:
    path = base / f"{role}.password"
    if not path.exists():
        replace(path, secrets.token_urlsafe(32))
    return path.read_text()
