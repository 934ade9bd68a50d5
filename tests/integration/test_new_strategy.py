"""`lethe new strategy`: what it writes passes as it stands, in this project and in a user's own folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cl.cli.commands.new import write_strategy
from cl.errors import ConfigError

ROOT = Path(__file__).parents[2]


def lethe(here: Path, *argv: str) -> str:
    """Run the command as an installed one: the present directory is not on the path by itself."""
    code = f"import sys; sys.path[0] = {str(ROOT)!r}; from cl.cli.main import main; sys.exit(main({list(argv)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", [None, "my_pkg/methods"])
def test_in_a_folder_of_one_s_own(tmp_path, folder):
    told = lethe(tmp_path, "new", "strategy", "my_method", *(["--folder", folder] if folder else []))
    assert told.splitlines()[-1] == "next: lethe train strategy=my_method"
    for line in told.splitlines()[:-1]:
        assert (tmp_path / line.removeprefix("wrote ")).is_file()
    told = lethe(tmp_path, "train", "strategy=my_method", "strategy.strength=0.5", "training.epochs=1")
    run = next(line.removeprefix("run folder: ") for line in told.splitlines() if line.startswith("run folder: "))
    assert "my_method" in run
    assert json.loads((tmp_path / run / "status.json").read_text())["status"] == "complete"


def test_its_test_passes(tmp_path):
    lethe(tmp_path, "new", "strategy", "my_method", "--folder", "my_pkg")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_in_this_project_nothing_else_is_edited(tmp_path):
    """On a copy: the command finds itself in the source tree, and the contract suite finds the strategy by its yaml."""
    for name in ("cl", "conf", "strategies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code = "import sys; from cl.cli.main import main; sys.exit(main(['new', 'strategy', 'my_method']))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file() and p not in before}
    assert written == {"strategies/my_method.py", "conf/strategy/my_method.yaml", "tests/unit/test_my_method.py"}
    assert all(p.read_bytes() == content for p, content in before.items())
    yaml = (tmp_path / "conf/strategy/my_method.yaml").read_text().splitlines()
    assert yaml[0].startswith("# ")
    assert yaml[1] == "_target_: strategies.my_method.MyMethod"
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [Path(sys.executable).with_name("ruff"), "check", "strategies/my_method.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)  # clean by this project's own rules
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("MyMethod", None, "`name` lower-case"),
        ("../x", None, "`name` lower-case"),
        ("ewc", None, "`name` not of a strategy that ships"),
        ("mine", "..", "`--folder` inside"),
        ("mine", "my-pkg", "`--folder` made of names"),
        ("mine", "strategies", "`--folder` no package that Python finds elsewhere"),
        ("mine", "json/mine", "`--folder` no package that Python finds elsewhere"),
    ],
)
def test_impossible_names_are_refused(tmp_path, name, folder, says):
    with pytest.raises(ConfigError, match=says):
        write_strategy(name, folder and Path(folder), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_never_overwrites(tmp_path):
    (tmp_path / "mine.py").write_text("precious")
    with pytest.raises(ConfigError, match=r"mine\.py"):
        write_strategy("mine", None, tmp_path)
    assert (tmp_path / "mine.py").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.py"]


@pytest.mark.parametrize("name", ["random", "torch", "cl"])
def test_the_name_of_a_module_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"`name` not of a module that Python can import already, got '{name}'"):
        write_strategy(name, None, tmp_path)
    assert not list(tmp_path.iterdir())
