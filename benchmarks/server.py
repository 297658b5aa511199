"""The benchmark's PostgreSQL: an embedded one of its own, or the one that DATABASE_URL names.

The server keeps its default durability: fsync and synchronous_commit stay on, unlike the tests'.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.errors import InsufficientPrivilege

from opsconsole import embedded_postgres, postgres_folders

PREFIX = "opsconsole_bench_"


class Server:
    """Makes, copies and drops databases, all of them named opsconsole_bench_*."""

    def __init__(self, url: str, superuser_url: str, home: Path, embedded: bool) -> None:
        self.url, self.superuser_url = url, superuser_url
        self.home, self.embedded = home, embedded
        self._admin = psycopg.connect(superuser_url, autocommit=True)

    @classmethod
    def start(cls) -> Server:
        home = Path(tempfile.mkdtemp(prefix="opsconsole-bench-"))
        home.chmod(0o755)
        (home / "static").mkdir()
        if given := os.environ.get("DATABASE_URL"):
            return cls(given, given, home, embedded=False)
        try:
            url = embedded_postgres.start(home).url
            [base] = postgres_folders.bases(home)
            supervisor = embedded_postgres.SUPERVISOR
            login = f"{supervisor}:{postgres_folders.password(base, supervisor)}"
            parts = urlsplit(url)
            netloc = f"{login}@{parts.hostname}:{parts.port}"
            return cls(url, parts._replace(netloc=netloc).geturl(), home, embedded=True)
        except BaseException:
            embedded_postgres.stop(home)
            shutil.rmtree(home, ignore_errors=True)
            raise

    def __enter__(self) -> Server:
        # Else SIGTERM would leave the server and its data behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def __exit__(self, *exc: object) -> None:
        if self.embedded:
            self._admin.close()
            embedded_postgres.stop(self.home)
        else:
            mine = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            for (name,) in self._admin.execute(mine, [PREFIX]).fetchall():
                self.drop(name)
            self._admin.close()
        for base in postgres_folders.bases(self.home):
            shutil.rmtree(base, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def of(self, database: str, *, superuser: bool = False) -> str:
        """The URL of one of the databases."""
        url = self.superuser_url if superuser else self.url
        return urlsplit(url)._replace(path=f"/{database}").geturl()

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database anew, owned by the project's role; its full name."""
        name = name if name.startswith(PREFIX) else PREFIX + name
        self.drop(name)
        owner = urlsplit(self.url).username or "CURRENT_USER"
        self._admin.execute(f'CREATE DATABASE {name} TEMPLATE {template} OWNER "{owner}"')
        return name

    def drop(self, name: str) -> None:
        self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, database: str, sql: str, params: Any = None) -> Any:
        """Run a statement; its single value, or the number of rows that it changed."""
        with psycopg.connect(self.of(database), autocommit=True) as connection:
            cursor = connection.execute(sql, params)
            return cursor.fetchone()[0] if cursor.description else cursor.rowcount

    def fill(self, database: str, sql: str, params: Any = None) -> None:
        """Insert many rows, without foreign keys and triggers where the role may say so."""
        with psycopg.connect(self.of(database, superuser=True), autocommit=True) as connection:
            with contextlib.suppress(InsufficientPrivilege):
                connection.execute("SET session_replication_role = replica")
            connection.execute(sql, params)

    def settle(self, database: str) -> None:
        """Leave no work behind that would fall into a measurement."""
        with psycopg.connect(self.of(database, superuser=True), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        self.checkpoint()

    def checkpoint(self) -> None:
        with contextlib.suppress(InsufficientPrivilege):
            self._admin.execute("CHECKPOINT")

    def show(self, setting: str) -> str:
        return str(self._admin.execute(f"SHOW {setting}").fetchone()[0])

    def backend_pid(self) -> int:
        return self._admin.info.backend_pid
