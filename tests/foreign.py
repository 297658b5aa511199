"""Callers that know nothing of this project: processes of their own, with psycopg or psql alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opsconsole import postgres_binaries
from tests.conftest import database_url

UPDATE = "SELECT func_update_task_status(p_task_id => %s, p_status => %s)"
COMPLETE = "SELECT complete_task_with_timing(p_task_id => %s, p_output_location => 'out/a.mp4')"
FAIL = "SELECT func_mark_task_failed(p_task_id => %s, p_error_message => 'CUDA out of memory')"

CALLER = """
import json, sys, psycopg
from psycopg.rows import dict_row

url, role, claims = sys.argv[1:]
with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
    if role:
        connection.execute(f"SET ROLE {role}")
    if claims:
        connection.execute("SELECT set_config('request.jwt.claims', %s, false)", [claims])
    notices = []
    connection.add_notice_handler(lambda n: notices.append(f"{n.severity}: {n.message_primary}"))
    for line in sys.stdin:
        answer, request = {}, json.loads(line)
        try:
            cursor = connection.execute(request["sql"], request["params"] or None)
            answer["rows"] = cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            answer["error"] = [error.sqlstate, str(error)]
        answer["notices"], notices[:] = notices[:], []
        print(json.dumps(answer, default=str), flush=True)
"""


class Refused(Exception):
    """The database refused a foreign caller's statement."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Caller:
    """A process with one session, which runs the statements that it is given one by one."""

    def __init__(self, role: str = "service_role", claims: Any = "", url: str = "") -> None:
        told = claims if isinstance(claims, str) else json.dumps(claims)
        # -I: neither the folder of this project nor PYTHONPATH is looked into.
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", CALLER, url or database_url(), role, told],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        self.notices: list[str] = []

    def __call__(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"sql": sql, "params": params}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        self.notices = answer["notices"]
        if "error" in answer:
            raise Refused(*answer["error"])
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    def value(self, sql: str, *params: Any) -> Any:
        """The one value that the statement gives."""
        [row] = self(sql, *params)
        [value] = row.values()
        return value

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def foreign(
    transactional_db: None, sql: Callable[..., list[tuple[Any, ...]]]
) -> Iterator[Callable[..., Caller]]:
    """Start a caller under a role that the tests' own login may take."""
    made: list[Caller] = []

    def start(role: str = "service_role", claims: Any = "", url: str = "") -> Caller:
        if role:
            sql(f"GRANT {role} TO CURRENT_USER")
        made.append(Caller(role, claims, url))
        return made[-1]

    yield start
    for caller in made:
        if caller.process.returncode is None:
            caller.kill()


def psql(statement: str, role: str = "service_role") -> subprocess.CompletedProcess[str]:
    """Run a statement with PostgreSQL's own client: one line a row, columns parted by |."""
    program = postgres_binaries.find().bin / "psql"
    return subprocess.run(
        [program, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, database_url()],
        env={"PATH": os.environ["PATH"], "PGOPTIONS": f"-c role={role}", "HOME": "/"},
        cwd="/",
        capture_output=True,
        text=True,
    )
