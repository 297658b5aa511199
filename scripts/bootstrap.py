"""Make .venv hold what a requirements file pins; nothing is done when it already does.

Run by the system's Python with the standard library alone: bootstrap.py REQUIREMENTS-FILE.
Ends with 0, or with one sentence on stderr and 1.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
INTERPRETER = f"{sys.version} in {sys.base_prefix}"


class BootstrapError(Exception):
    """.venv cannot be made ready; the message says what to do about it."""


def main(requirements: Path) -> None:
    """Bring .venv to the state that the file and this interpreter ask for."""
    with requirements.open("rb") as file:
        # Two commands started at once: the second waits, and then finds everything done.
        fcntl.flock(file, fcntl.LOCK_EX)
        wanted = hashlib.sha256(file.read()).hexdigest()
        done = read_stamp()
        if done is None:
            make_venv()
            done = {"python": INTERPRETER}
        if done.get(requirements.name) != wanted:
            # Unsaid first: an interrupted installation must not look like a finished one.
            write_stamp({"python": INTERPRETER})
            install(requirements)
            write_stamp({**done, requirements.name: wanted})


def read_stamp() -> dict[str, str] | None:
    """What .venv holds; None if it is missing, unfinished or another interpreter's."""
    try:
        done = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return None
    return done if done.get("python") == INTERPRETER and os.access(PYTHON, os.X_OK) else None


def write_stamp(done: dict[str, str]) -> None:
    new = STAMP.with_suffix(".new")
    new.write_text(json.dumps(done, indent=1))
    new.replace(STAMP)


def make_venv() -> None:
    """Make .venv anew."""
    if not all(importlib.util.find_spec(name) for name in ("ensurepip", "venv")):
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        how = (
            f"run: apt-get install {package}"
            if shutil.which("apt-get")
            else f"install your system's package for it (Debian calls it {package})"
        )
        raise BootstrapError(f"{sys.executable} cannot make a virtual environment; {how}")
    import venv  # which some systems package apart

    say(f"Making .venv with Python {sys.version.split()[0]}.")
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BootstrapError(
            f".venv cannot be made in {Path.cwd()} ({error}): put that right, then try again."
        ) from error


def install(requirements: Path) -> None:
    say(f"Installing the packages of {requirements} into .venv.")
    command = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["--no-input", "--require-hashes", "--requirement", str(requirements)]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise BootstrapError(
            f"The packages of {requirements} could not be installed: see pip's reason above, "
            "put it right, then try again."
        )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BootstrapError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
