#!/usr/bin/env bash
# Installs what is needed, then runs the tests.
#   bash scripts/test.sh                 all but the slow ones
#   bash scripts/test.sh cluster         those that start a scheduler (Slurm, Ray)
#   bash scripts/test.sh ARGUMENTS...    given to pytest, e.g. tests/unit -k seeding, or -m slow
# JOBS says how many processes share the work (default: one a core, 8 at most). VENV, PYTHON: see setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh "$([ "${1:-}" = cluster ] && echo dev,slurm,ray || echo dev)"

cores=$(getconf _NPROCESSORS_ONLN)
jobs=${JOBS:-$((cores < 8 ? cores : 8))}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # the tests are many small runs: cores go to processes
if [ "${1:-}" = cluster ]; then
    shift
    exec "${VENV:-.venv}/bin/python" -m pytest -q -m cluster "$@"
fi
exec "${VENV:-.venv}/bin/python" -m pytest -q -m "not slow and not cluster" -n "$jobs" "$@"
