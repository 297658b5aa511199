"""The demo's database: the one that DATABASE_URL names, else a server of the data folder's own."""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import environ

from opsconsole import doctor, embedded_postgres
from opsconsole.demo.home import DemoError

# There while the server of this data folder is the demo's to stop; it outlives a killed demo.
OWNED_FILE = "demo.server"
SCHEMES = {"postgresql", "postgres", "psql", "pgsql"}


@dataclass(frozen=True)
class Database:
    """A database ready for use. `home`: set if its server ends with the demo. `embedded`: the data
    folder whose server it is."""

    url: str
    home: Path | None = None
    embedded: Path | None = None

    def tend(self) -> None:
        """Start the data folder's server again where it died. DemoError if that does not work."""
        if self.embedded is None or embedded_postgres.running_url(self.embedded):
            return
        sys.stderr.write("PostgreSQL has died; it is started again.\n")
        try:
            server = embedded_postgres.start(self.embedded)
        except embedded_postgres.EmbeddedPostgresError as error:
            raise DemoError(str(error)) from error
        if server.url != self.url:
            raise DemoError("PostgreSQL had to move to another port: run `make demo` again.")

    def stop(self, seconds: float) -> None:
        """Stop the server if it is ours; one that needs longer ends by itself afterwards."""
        if not self.home:
            return
        stopping = threading.Thread(target=_stop_server, args=[self.home], daemon=True)
        stopping.start()
        stopping.join(seconds)
        if not stopping.is_alive():
            (self.home / OWNED_FILE).unlink(missing_ok=True)


def _stop_server(home: Path) -> None:
    try:
        embedded_postgres.stop(home)
    except embedded_postgres.EmbeddedPostgresError as error:
        sys.stderr.write(f"{error}\n")


def open_database(url: str | None, home: Path) -> Database:
    """Check the database at the URL; without one start the data folder's server. DemoError."""
    if url:
        problem = doctor.connection_problem(parsed(url))
        if problem:
            raise DemoError(problem)
        return Database(url)
    try:
        owned = home / OWNED_FILE
        if not embedded_postgres.running_url(home):
            owned.touch()  # before the start: we may be stopped, or killed, in the middle of it
        server = embedded_postgres.start(home)
        return Database(server.url, home if owned.exists() else None, embedded=home)
    except embedded_postgres.EmbeddedPostgresError as error:
        raise DemoError(str(error)) from error


def stop_leftover(home: Path) -> None:
    """Stop the server of a start that was broken off."""
    if (home / OWNED_FILE).exists():
        Database("", home).stop(5)


def parsed(url: str) -> dict[str, object]:
    """The URL as the settings read it, an entry of DATABASES. DemoError: it is no PostgreSQL's."""
    with contextlib.suppress(ValueError):
        config = dict(environ.Env.db_url_config(url)) if url.split("://")[0] in SCHEMES else {}
        if config.get("NAME") and isinstance(config.get("PORT") or 5432, int):
            return config
    raise DemoError(
        "DATABASE_URL names no PostgreSQL database: write it as "
        "postgresql://user:password@host:5432/name, or unset it."
    )
