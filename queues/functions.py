"""Our SQL functions as they should be, compared with those that the database has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from django.apps import apps
from django.db import connection, transaction

LISTS_OF_ROLES = {
    "opsconsole_worker": "v_verbs",
    "service_role": "v_verbs",
    "authenticated": "v_users",
}
LONG_NAMES = {
    "timestamptz": "timestamp with time zone",
    "int": "integer",
    "bool": "boolean",
    "float8": "double precision",
}
FOUND = """
SELECT p.proname, n.nspname, pg_get_function_identity_arguments(p.oid), p.pronargdefaults,
       pg_get_function_result(p.oid), p.prosrc, ARRAY(
           SELECT r.rolname::text FROM pg_roles r
            WHERE r.rolname = ANY (%s) AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
            ORDER BY r.rolname)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proname = ANY (%s) AND n.nspname !~ '^(pg_|information_schema$)'
 ORDER BY p.proname, n.nspname, p.oid
"""


@dataclass(frozen=True)
class Function:
    """What a file of SQL promises. `arguments`: names and types as PostgreSQL writes them."""

    name: str
    file: Path
    arguments: str
    defaults: int
    result: str
    body: str

    def __str__(self) -> str:
        return f"public.{self.name}({self.arguments})"


@dataclass(frozen=True)
class Present:
    """One function of such a name in the database. `refused`: our roles that may not call it."""

    name: str
    schema: str
    arguments: str
    defaults: int
    result: str
    body: str
    refused: list[str]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}({self.arguments})"


@dataclass(frozen=True)
class Finding:
    """What is wrong with one function, and the exact command (or SQL statement) that mends it."""

    function: str
    kind: Literal["missing", "wrong signature", "wrong schema", "not granted", "outdated"]
    sentence: str
    remedy: str


def findings(names: Sequence[str] | None = None) -> list[Finding]:
    """What is wrong with the functions of these names (None: with any of ours)."""
    wanted = [f for f in expected() if names is None or f.name in names]
    present = _present([f.name for f in wanted])
    return [finding for f in wanted for finding in _judge(f, present.get(f.name, []))]


def _present(names: Sequence[str]) -> dict[str, list[Present]]:
    found: dict[str, list[Present]] = {}
    with connection.cursor() as cursor:
        cursor.execute(FOUND, [list(LISTS_OF_ROLES), list(names)])
        for row in cursor.fetchall():
            found.setdefault(row[0], []).append(Present(*row))
    return found


def _judge(function: Function, present: Sequence[Present]) -> Iterator[Finding]:
    name = function.name
    here = [found for found in present if found.schema == "public"]
    right = [found for found in here if _same(function, found)]
    for found in here:
        if found not in right:
            yield Finding(
                name,
                "wrong signature",
                f"{found} returns {found.result}; expected: {function} returns {function.result}, "
                f"with {function.defaults} defaults.",
                f"manage.py restore_functions --replace {name}",
            )
    if not here:
        elsewhere = next((found for found in present if _same(function, found)), None)
        if elsewhere:
            yield Finding(
                name,
                "wrong schema",
                f"{name} is in schema {elsewhere.schema}, where no caller finds it.",
                f"ALTER FUNCTION {elsewhere} SET SCHEMA public;",
            )
        else:
            yield Finding(
                name,
                "missing",
                f"{function} does not exist.",
                f"manage.py restore_functions {name}",
            )
    if any(found.body.strip() != function.body.strip() for found in right):
        yield Finding(
            name,
            "outdated",
            f"{function} is not the one that this version brings.",
            f"manage.py restore_functions {name}",
        )
    may = _roles_of(name)
    for role in (role for found in right for role in found.refused if role in may):
        yield Finding(
            name,
            "not granted",
            f"{role} may not call {name}.",
            f"GRANT EXECUTE ON FUNCTION {right[0]} TO {role};",
        )


def _same(function: Function, found: Present) -> bool:
    return (found.arguments, found.defaults, found.result) == (
        function.arguments,
        function.defaults,
        function.result,
    )


@transaction.atomic
def restore(names: Sequence[str], *, replace: bool = False) -> None:
    """Create these functions as their files say, with their grants, and tell PostgREST.

    replace: first drop what stands in public under the name. Raises KeyError for another name,
    DatabaseError where something depends on what would be dropped.
    """
    known = {function.name: function for function in expected()}
    with connection.cursor() as cursor:
        for function in [known[name] for name in names]:
            if replace:
                for found in _present([function.name]).get(function.name, []):
                    if found.schema == "public" and not _same(function, found):
                        cursor.execute(f"DROP FUNCTION {found}")
            cursor.execute(function.file.read_text())
        for text in grants():
            cursor.execute(text)
        cursor.execute("NOTIFY pgrst, 'reload schema'")


@cache
def grants() -> tuple[str, ...]:
    """The SQL that says who may call what: `grants.sql` of each installed app that has one."""
    files = [Path(app.path) / "grants.sql" for app in apps.get_app_configs()]
    return tuple(file.read_text() for file in files if file.is_file())


@cache
def expected() -> tuple[Function, ...]:
    """Our functions, read from the folders `sql` of the installed apps."""
    folders = [Path(app.path) / "sql" for app in apps.get_app_configs()]
    files = [file for folder in folders for file in sorted(folder.glob("*.sql"))]
    return tuple(function for file in files if (function := _read(file)))


def _read(file: Path) -> Function | None:
    """The function that a file creates; None for one that creates something else."""
    text = re.sub(r"^--.*$", "", file.read_text(), flags=re.M)
    head = re.search(r"CREATE OR REPLACE FUNCTION\s+(\w+)\s*\(", text)
    if not head:
        return None
    arguments, rest = _inside(text[head.end() - 1 :])
    result = re.match(r"\s*RETURNS\s+(.+?)\s+LANGUAGE\b", rest, re.S)
    parts = [re.split(r"\s+DEFAULT\s+", part) for part in _split(arguments)]
    return Function(
        head[1],
        file,
        ", ".join(_long(part[0]) for part in parts),
        sum(len(part) > 1 for part in parts),
        _result(result[1]) if result else "",
        file.read_text().split("$$")[1],
    )


def _result(text: str) -> str:
    if not text.startswith("TABLE"):
        return _long(text)
    columns, _ = _inside(text[text.index("(") :])
    return f"TABLE({', '.join(_long(column) for column in _split(columns))})"


def _inside(text: str) -> tuple[str, str]:
    """What the parenthesis that opens the text encloses, and what follows it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:place], text[place + 1 :]
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def _split(text: str) -> list[str]:
    """The parts between commas that no parenthesis encloses."""
    pieces = re.split(r",(?![^()]*\))", text)
    return [" ".join(piece.split()) for piece in pieces if piece.strip()]


def _long(text: str) -> str:
    """With the long names of types, which PostgreSQL answers."""
    return re.sub(r"\b\w+\b(?=(\[\])?$)", lambda word: LONG_NAMES.get(word[0], word[0]), text)


@cache
def _roles_of(name: str) -> frozenset[str]:
    """The roles that a grants.sql lets call this function."""
    roles: set[str] = set()
    for text in grants():
        lists = {
            key: set(re.findall(r"'(\w+)'", body))
            for key, body in re.findall(r"(v_\w+) constant text\[\] := ARRAY\[(.*?)\];", text, re.S)
        }
        roles |= {role for role, key in LISTS_OF_ROLES.items() if name in lists.get(key, ())}
    return frozenset(roles)
