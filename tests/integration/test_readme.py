"""What the README shows works: its commands, its plug-in, its Python, its W&B sweep."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_server import Server

from cl.cli.main import main
from cl.testing import check_strategy

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language that a comment does not except."""
    found = re.finditer(rf"(<!-- not run[^>]*-->\n)?```{language}\n(.*?)```", README, re.DOTALL)
    return [match[2] for match in found if match[1] is None]


def commands() -> list[str]:
    lines = "".join(blocks("bash")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def program(tmp_path) -> dict[str, str]:
    """An environment with a `lethe` that runs this source tree."""
    path = tmp_path / "bin" / "lethe"
    path.parent.mkdir()
    code = f"import sys; sys.path[0] = {str(ROOT)!r}; from cl.cli.main import main; sys.exit(main())"
    path.write_text(f"#!{sys.executable}\n{code}\n")
    path.chmod(0o755)
    folders = [str(path.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    here = {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return environment | here


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_runs_in_this_order(tmp_path, program):
    assert len(commands()) >= 15
    (tmp_path / "my_methods.py").write_text(blocks("python")[0])
    for command in commands():
        done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=program, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs" / "report.html").is_file()
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[1]], cwd=tmp_path, env=program, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(tmp_path.glob("runs/*/*/results.npz"))) >= 14


def test_the_plug_in_passes_the_contract_and_trains(tmp_path, monkeypatch, capsys):
    snippet = blocks("python")[0]
    assert len(snippet.splitlines()) <= 24
    (tmp_path / "my_methods.py").write_text(snippet)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = next(line for line in commands() if "my_methods.Tether" in line and line.startswith("lethe train"))
    assert main([*command.split()[1:], "training.epochs=1", "tracker=none"]) == 0
    assert "Tether" in capsys.readouterr().out
    monkeypatch.syspath_prepend(tmp_path)
    from my_methods import Tether

    check_strategy(Tether, strength=0.5)


def test_every_command_it_names_exists():
    from cl.cli.main import commands as known

    named = set(re.findall(r"\blethe ([a-z-]+)", README)) - {"is"}
    assert named <= set(known()), named - set(known())
    assert {"train", "list", "report", "compare", "new"} <= named


def test_every_key_it_explains_exists():
    import yaml

    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    keys = set(config) | {next(iter(d)) for d in config["defaults"] if isinstance(d, dict)}
    explained = re.search(r"## Keys of a run\n\n(.*?)\n\n", README, re.DOTALL)[1]
    cells = [line.split("|")[1] for line in explained.splitlines()[2:]]
    named = {key.split(".")[0] for cell in cells for key in re.findall(r"`([^`]+)`", cell)}
    assert named == keys - {"defaults", "hydra", "experiment"}


@pytest.mark.slow
def test_wandb_agent_drives_the_command(tmp_path, program):
    """The README's sweep, through W&B's own programs and a server that hands out its jobs."""
    server = Server()
    try:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "x" * 40, "WANDB_ENTITY": "me"}
        home = str(tmp_path / "wandb-home")
        online |= {f"WANDB_{kind}_DIR": home for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
        (tmp_path / "sweep.yaml").write_text(blocks("yaml")[0])
        for words in (["sweep", "sweep.yaml"], ["agent", "me/lethe/sweep0"]):
            done = subprocess.run(
                ["wandb", *words], cwd=tmp_path, env=program | online, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.stop()
    assert set(server.runs) == {f"sweep0-{i}" for i in range(4)}
    asked = sorted((r["config"]["strategy"]["strength"], r["config"]["seed"]) for r in server.runs.values())
    assert asked == [(1, 0), (1, 1), (100, 0), (100, 1)]
    assert all(r["exitcode"] == 0 for r in server.runs.values())
    assert all("measures/average_accuracy" in r["summary"] for r in server.runs.values())
