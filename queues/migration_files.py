"""SQL in migrations: each migration loads its own frozen copy, which is never edited afterwards.

The text that runs today stands in <app>/sql; a test proves that the migrated database agrees.
"""

from pathlib import Path

from django.db.migrations.operations import RunSQL

FROZEN = Path(__file__).parent / "migrations" / "sql"


def run_sql_file(name: str, *, folder: Path = FROZEN, reverse: str = RunSQL.noop) -> RunSQL:
    """An operation that runs `folder/name`, as one script."""
    # One script, not statements split by sqlparse, which does not know dollar quotes.
    return RunSQL([folder.joinpath(name).read_text()], reverse)
