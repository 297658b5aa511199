"""The project's settings, with the benchmark's no-op task; nothing of the queue differs."""

from opsconsole.settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.noop_app"]  # noqa: F405
