"""How .venv comes to be: once, whole, and with a sentence where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASE_DIR = Path(__file__).resolve().parent.parent
NAMES = ("python3.13", "python3.12", "python3.11", "python3")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, in a path with a space, that holds only what the bootstrap needs."""
    path = tmp_path / "a checkout"
    shutil.copytree(BASE_DIR / "scripts", path / "scripts")
    (path / "requirements.txt").write_text("# nothing\n")
    return path


def bootstrap(checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", checkout / "scripts" / "bootstrap.sh", "requirements.txt"],
        env={key: value for key, value in os.environ.items() if key != "PYTHON"} | environ,
        capture_output=True,
        text=True,
    )


def pythons_that(script: str, folder: Path) -> str:
    """A PATH on which every Python is this script."""
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_it_installs_once_and_again_only_what_changed(checkout: Path) -> None:
    requirements = checkout / "requirements.txt"
    done = bootstrap(checkout, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert "Making .venv" in done.stdout
    assert "Installing" in done.stdout
    assert bootstrap(checkout, PYTHON=sys.executable).stdout == ""

    requirements.write_text("# nothing else\n")
    done = bootstrap(checkout, PYTHON=sys.executable)
    assert done.stdout == "Installing the packages of requirements.txt into .venv.\n"

    # Refused before any network is asked, as its hash is missing.
    requirements.write_text("django==5.2\n")
    for _ in range(2):
        done = bootstrap(checkout, PYTHON=sys.executable)
        assert done.returncode == 1
        assert "Installing" in done.stdout
        assert "could not be installed: see pip's reason above" in done.stderr.splitlines()[-1]

    # What was installed before the failure may be half replaced, so it is installed again.
    requirements.write_text("# nothing else\n")
    assert "Installing" in bootstrap(checkout, PYTHON=sys.executable).stdout


def test_an_unfinished_venv_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    done = bootstrap(checkout, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert "Making .venv" in done.stdout


def test_a_python_without_venv_names_the_package(checkout: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None")
    path = pythons_that(f'PYTHONPATH="{hidden}" exec "{sys.executable}" "$@"', tmp_path / "bin")
    done = bootstrap(checkout, PATH=path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert package in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_python_that_is_new_enough(checkout: Path, tmp_path: Path) -> None:
    done = bootstrap(checkout, PATH=pythons_that("exit 1", tmp_path / "bin"))
    assert done.returncode == 1
    assert done.stderr.startswith("OpsConsole needs Python 3.11 or newer: install it")
    assert len(done.stderr.splitlines()) == 1


def test_a_python_given_by_name_must_be_one(checkout: Path) -> None:
    done = bootstrap(checkout, PYTHON="/nowhere/python3")
    assert done.returncode == 1
    assert done.stderr.startswith("PYTHON=/nowhere/python3 is not a Python 3.11 or newer")


def test_the_pinned_files_agree_and_name_no_address() -> None:
    pins = {}
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-newest.txt"):
        text = (BASE_DIR / name).read_text()
        assert "://" not in text
        lines = [line for line in text.splitlines() if "==" in line and not line.startswith(" ")]
        assert all(line.endswith("\\") for line in lines)  # its hashes follow
        pins[name] = {line.split("==")[0]: line.split()[0] for line in lines}
    assert pins["requirements.txt"].items() <= pins["requirements-dev.txt"].items()
    assert pins["requirements-newest.txt"].keys() <= pins["requirements.txt"].keys()
