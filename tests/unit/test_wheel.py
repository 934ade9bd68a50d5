"""The wheel holds everything that the command needs, and works from any directory."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


BROUGHT_ALONG = {"joblib": "hydra-joblib-launcher", "optuna": "hydra-optuna-sweeper"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("lethe-*.whl"))


def tracked(folder: str, pattern: str) -> set[str]:
    return {str(f.relative_to(ROOT)) for f in (ROOT / folder).rglob(pattern) if "__pycache__" not in f.parts}


CODE = {path for folder in ("cl", "strategies", "hydra_plugins") for path in tracked(folder, "*.py")}


def test_wheel_holds_code_strategies_and_configuration(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= CODE
    assert {f"cl/{name}" for name in tracked("conf", "*.yaml")} <= names
    assert "cl/py.typed" in names
    assert not [n for n in names if n.startswith(("tests/", "scripts/", "conf/"))]


def test_every_package_that_is_imported_is_declared():
    imported = {name for path in CODE for name in third_party((ROOT / path).read_text())}
    assert imported >= {"torch", "numpy", "hydra"}
    declared = set()
    lines = re.findall(r'^    "([\w-]+)[^"]*",$|\["([\w-]+)[>=]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for one, other in lines:
        declared.add((one or other).lower())
    names = packages_distributions()
    missing = {n for n in imported if not declared & {d.lower() for d in names.get(n, [n])} and n not in BROUGHT_ALONG}
    assert not missing


def third_party(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"cl", "strategies", "hydra_plugins"}


def test_wheel_names_command_licence_and_python(wheel):
    archive = zipfile.ZipFile(wheel)
    info = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA")).rpartition("/")[0]
    assert "lethe = cl.cli.main:entry" in archive.read(f"{info}/entry_points.txt").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    for line in ("Name: lethe", "Requires-Python: >=3.10", "License-Expression: MIT", "Requires-Dist: torch>=2.6"):
        assert line in metadata.splitlines()
    assert f"{info}/licenses/LICENSE" in archive.namelist()


@pytest.mark.slow
def test_installed_wheel_works_from_any_directory(wheel, tmp_path):
    """In an environment of its own, with this interpreter's libraries but nothing of the source tree."""
    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    bin_ = tmp_path / "env" / "bin"
    pip = [str(bin_ / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def lethe(*argv: str) -> str:
        done = subprocess.run(
            [str(bin_ / "lethe"), *argv], cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = [line.split()[0] for line in lethe("list", "strategies").splitlines()]
    assert listed == sorted(f.stem for f in (ROOT / "conf" / "strategy").glob("*.yaml"))
    code = "import cl, strategies; print(cl.__file__, strategies.__file__)"
    where = subprocess.run(
        [str(bin_ / "python"), "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    )
    assert where.stdout.count(str(site)) == 2
