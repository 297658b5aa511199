"""The storm in small; `python -m benchmarks.storm` is the whole one: 50 processes for a minute."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, database_url


@pytest.mark.django_db(transaction=True)
def test_processes_that_claim_finish_act_and_die_break_no_rule():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", "--seconds", "6", "--processes", "8"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url()},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no violation" in done.stdout
    kills, claims, rescued = (
        int(re.search(rf"([\d,]+) {what}", done.stdout)[1].replace(",", ""))
        for what in ("SIGKILLs", "claims", "rescued")
    )
    assert kills > 5
    assert claims > 100
    assert rescued > 0
