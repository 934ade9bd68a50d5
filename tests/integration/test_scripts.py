"""The shell scripts: set-up is done once, and says what is wrong in one line."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return path


def script(name: str, *argv: str, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "scripts" / name), *argv]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """An environment whose programs write down how they were called instead of doing it."""
    note = f'echo "$(basename "$0") $*" >> {tmp_path}/calls'
    for name in ("python", "lethe"):
        program(tmp_path / "venv" / "bin" / name, note)
    python = program(tmp_path / "python3", "exit 0")
    return {"VENV": str(tmp_path / "venv"), "PYTHON": str(python)}


def calls(environment: dict[str, str]) -> list[str]:
    path = Path(environment["VENV"]).parent / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def test_set_up_installs_once_with_the_constraints(environment):
    assert script("setup.sh", **environment).returncode == 0
    (call,) = calls(environment)
    assert call.startswith("python -m pip install")
    assert "--constraint constraints.txt --editable ." in call
    assert script("setup.sh", **environment).returncode == 0
    assert calls(environment) == []
    assert script("setup.sh", "dev", **environment).returncode == 0
    assert calls(environment)[0].endswith("--editable .[dev]")


def test_a_failed_installation_is_tried_again(environment):
    program(Path(environment["VENV"]) / "bin" / "python", "exit 1")
    assert script("setup.sh", **environment).returncode == 1
    assert not (Path(environment["VENV"]) / ".lethe").exists()


def test_an_old_python_is_refused_with_one_line(environment, tmp_path):
    program(tmp_path / "python3", '[ "$1" = --version ] && echo "Python 3.9.2"; exit 1')
    done = script("setup.sh", **environment)
    assert done.returncode == 2
    assert done.stderr == "error: Expected Python 3.10 or newer, got Python 3.9.2; name another by PYTHON=...\n"


def test_demo_trains_compares_and_reports(environment, tmp_path):
    assert script("demo.sh", "training.epochs=1", OUTPUT=str(tmp_path / "runs"), **environment).returncode == 0
    train, compare, report = [c for c in calls(environment) if c.startswith("lethe")]
    for word in ("-m", "strategy=naive,joint,ewc,lwf,er,progressive", "seed=0,1,2", "training.epochs=1"):
        assert word in train.split()
    assert compare.startswith(f"lethe compare {tmp_path}/runs/demo")
    assert report == f"lethe report {tmp_path}/runs/demo"


def test_tests_leave_out_the_slow_ones_unless_asked(environment):
    assert script("test.sh", "tests/unit", JOBS="3", **environment).returncode == 0
    assert calls(environment)[-1] == "python -m pytest -q -m not slow and not cluster -n 3 tests/unit"
    assert script("test.sh", "cluster", "-x", **environment).returncode == 0
    assert calls(environment)[-1] == "python -m pytest -q -m cluster -x"


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_scripts_are_sound_and_can_be_called(path):
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
