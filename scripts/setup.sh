#!/usr/bin/env bash
# Makes the virtual environment and installs the project into it: bash scripts/setup.sh [EXTRA]
#   VENV    folder of the environment (default: .venv in the project)
#   PYTHON  interpreter to make it with (default: python3)
# Quick when nothing changed: a stamp in the environment holds what was installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${VENV:-.venv}
python=${PYTHON:-python3}
extra=${1:-}
stamp=$venv/.lethe${extra:+-$extra}
wanted=$(pwd; cat pyproject.toml constraints.txt)

if [ -x "$venv/bin/lethe" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "error: Expected Python 3.10 or newer, got $("$python" --version 2>&1); name another by PYTHON=..." >&2
    exit 2
}
if [ ! -x "$venv/bin/python" ]; then
    echo "making the environment in $venv"
    "$python" -m venv "$venv" || {
        echo "error: $python has no working venv module (on Debian and Ubuntu: apt install python3-venv)" >&2
        exit 2
    }
fi
echo "installing (a few minutes the first time: torch is large)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".${extra:+[$extra]}"
printf '%s\n' "$wanted" > "$stamp"
