"""Make .venv hold what requirements files pin; nothing is done when it already does.

Run by the system's Python with the standard library alone: bootstrap.py REQUIREMENTS-FILE...
Of several files the later ones win. BOOTSTRAP_VENV names another folder than .venv.
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

VENV = Path(os.environ.get("BOOTSTRAP_VENV") or ".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
INTERPRETER = f"{sys.version} in {sys.base_prefix}"


class BootstrapError(Exception):
    """The folder cannot be made ready; the message says what to do about it."""


def main(requirements: list[Path]) -> None:
    """Bring VENV to the state that the files and this interpreter ask for."""
    name = " ".join(file.name for file in requirements)
    with requirements[0].open("rb") as lock:
        # Two commands started at once: the second waits, and then finds everything done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256(b"".join(file.read_bytes() for file in requirements)).hexdigest()
        done = read_stamp()
        if done is None:
            make_venv()
            done = {"python": INTERPRETER}
        if done.get(name) != wanted:
            # Unsaid first: an interrupted installation must not look like a finished one.
            write_stamp({"python": INTERPRETER})
            for file in requirements:
                install(file)
            write_stamp({**done, name: wanted})


def read_stamp() -> dict[str, str] | None:
    """What VENV holds; None if it is missing, unfinished or another interpreter's."""
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
    """Make VENV anew."""
    if not all(importlib.util.find_spec(name) for name in ("ensurepip", "venv")):
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        how = (
            f"run: apt-get install {package}"
            if shutil.which("apt-get")
            else f"install your system's package for it (Debian calls it {package})"
        )
        raise BootstrapError(f"{sys.executable} cannot make a virtual environment; {how}")
    import venv  # which some systems package apart

    say(f"Making {VENV} with Python {sys.version.split()[0]}.")
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BootstrapError(
            f"{VENV} cannot be made in {Path.cwd()} ({error}): put that right, then try again."
        ) from error


def install(requirements: Path) -> None:
    say(f"Installing the packages of {requirements} into {VENV}.")
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
        main([Path(name) for name in sys.argv[1:]])
    except BootstrapError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
