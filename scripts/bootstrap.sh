#!/bin/sh
# Finds a Python that is new enough and lets it make .venv ready: bootstrap.sh REQUIREMENTS-FILE.
# PYTHON names the one to use; without it the first of the list below is taken.
set -eu
cd "$(dirname "$0")/.."

file=$1
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- python3.13 python3.12 python3.11 python3
fi
for python in "$@"; do
    # Run it rather than look for it: the name may be a shim with nothing behind it.
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" scripts/bootstrap.py "$file"
    fi
done
if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python 3.11 or newer: give another one, or unset PYTHON." >&2
else
    echo "OpsConsole needs Python 3.11 or newer: install it (apt-get install python3)," \
        "or name it, as in: make demo PYTHON=/path/to/python3" >&2
fi
exit 1
