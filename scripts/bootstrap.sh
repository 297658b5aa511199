#!/bin/sh
# Finds a Python that is new enough and lets it make .venv ready: bootstrap.sh REQUIREMENTS-FILE...
# PYTHON names the one to use; without it the first of the list below is taken. BOOTSTRAP_VENV names
# another folder than .venv, BOOTSTRAP_LEAST the oldest Python that will do.
set -eu
cd "$(dirname "$0")/.."

files=$*
least=${BOOTSTRAP_LEAST:-3.11}
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- python3.13 python3.12 python3.11 python3
fi
for python in "$@"; do
    # Run it rather than look for it: the name may be a shim with nothing behind it.
    if "$python" -c "import sys; sys.exit(sys.version_info < (${least%%.*}, ${least#*.}))" 2>/dev/null; then
        # The names of the files hold no spaces.
        # shellcheck disable=SC2086
        exec "$python" scripts/bootstrap.py $files
    fi
done
if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python $least or newer: give another one, or unset PYTHON." >&2
else
    echo "OpsConsole needs Python $least or newer: install it (apt-get install python3)," \
        "or name it, as in: make demo PYTHON=/path/to/python3" >&2
fi
exit 1
