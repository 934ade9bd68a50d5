"""Every experiment is a delta on the defaults, and runs."""

import json
from pathlib import Path

import pytest
import yaml

from cl.cli.main import main

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiment_runs(path, tmp_path):
    assert main(["train", f"experiment={path.stem}", "tracker=none", f"output={tmp_path}"]) == 0
    (status,) = tmp_path.glob("*/*/status.json")
    assert json.loads(status.read_text())["status"] == "complete"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiment_says_only_what_differs(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")
    found, defaults = yaml.safe_load(path.read_text()), {}
    for choice in yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]:
        if isinstance(choice, dict):
            ((group, name),) = choice.items()
            file = CONF / group / f"{name}.yaml"
            defaults[group] = yaml.safe_load(file.read_text()) if file.exists() else {}
    for group, fields in found.items():
        for name, value in fields.items() if group in defaults else ():
            assert defaults[group].get(name, "absent") != value, f"{group}.{name} is the default"
