"""OpsConsole as a peer of a side-by-side benchmark of PostgreSQL queues.

Copied to that benchmark as peers/ours.py it needs OPSCONSOLE_REPOSITORY, the folder of manage.py.
A second module of one line there, `from .ours import ARCHIVE as PEER`, is ours_archive.
The worker is `manage.py runworker` as its documentation says for short tasks: one executor.
"""

import os
import sys
import tempfile
from pathlib import Path

from .base import Peer, dsn

REPOSITORY = Path(os.environ.get("OPSCONSOLE_REPOSITORY", Path(__file__).parent.parent))
HOME = Path(tempfile.gettempdir()) / "opsconsole-benchmark"


class OpsConsole(Peer):
    name = venv = "ours"
    requirements = ("-r", str(REPOSITORY / "requirements.txt"))
    version_of = "django"
    settings = "manage.py runworker --queues default --concurrency 1, settings of the project"
    drain_n = 50_000
    pending_sql = """SELECT count(*) FROM tasks
        WHERE status IN ('pending', 'scheduled', 'blocked', 'processing')"""
    finished_sql = "SELECT count(*) FROM tasks WHERE status = 'completed'"
    fill_pending_sql = """INSERT INTO tasks (type, payload)
        SELECT 'noop', jsonb_build_object('seq', s, 'pad', repeat('x', 72))
        FROM generate_series(%(lo)s::int, %(lo)s::int + %(n)s::int - 1) s"""
    _fill_done = """INSERT INTO {} (type, payload, status, attempts, lease, worker_id,
            started_at, completed_at)
        SELECT 'noop', jsonb_build_object('seq', -1, 'pad', repeat('x', 72)), 'completed', 1, 1,
            'filled', now(), now()
        FROM generate_series(1, %(n)s::int) s"""
    fill_done_sql = _fill_done.format("tasks")

    def django(self):
        os.environ.update(self.env(), DATABASE_URL=dsn())
        sys.path.insert(0, str(REPOSITORY))
        import django

        django.setup()

    def setup(self):
        self.django()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)

    def open(self):
        self.django()
        from queues.bulk import enqueue_batch
        from queues.enqueue import enqueue

        self.enqueue, self.enqueue_batch = enqueue, enqueue_batch

    def enqueue_one(self, job):
        self.enqueue("noop", job)

    def enqueue_bulk(self, jobs):
        self.enqueue_batch("noop", jobs)

    def worker_cmd(self, python, agent):
        concurrency = os.environ.get("BENCH_TUNE", "1")
        manage = str(REPOSITORY / "manage.py")
        return [python, manage, "runworker", "--queues", "default", "--concurrency", concurrency]

    def env(self):
        HOME.mkdir(exist_ok=True)
        (HOME / "static").mkdir(exist_ok=True)
        return {
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "SECRET_KEY": "only-for-benchmarks",
            "OPSCONSOLE_HOME": str(HOME),
            "OPSCONSOLE_DEMO": "false",
            "LOG_LEVEL": "WARNING",
        }


class OpsConsoleArchive(OpsConsole):
    """The same with its finished rows in the archive, as they are after a day."""

    name = "ours_archive"
    fill_done_sql = OpsConsole._fill_done.format("tasks_archive")


PEER = OpsConsole()
ARCHIVE = OpsConsoleArchive()
