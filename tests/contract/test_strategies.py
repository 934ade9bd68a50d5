"""Every strategy that ships, found by its yaml, is held to the contract with the numbers of its yaml."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl.build import construct
from cl.cli.compose import compose
from cl.strategy import Strategy
from cl.testing import checks

CONF = Path(__file__).parents[2] / "conf" / "strategy"


def shipped() -> list[tuple[str, type[Strategy], dict[str, Any]]]:
    found = []
    for path in sorted(CONF.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text())
        if "defaults" in fields:  # made of other yamls
            fields = compose([f"strategy={path.stem}"])["strategy"]
        fields = {name: construct(value, f"strategy.{name}") for name, value in fields.items()}
        module, _, name = fields.pop("_target_").rpartition(".")
        found.append((path.stem, getattr(importlib.import_module(module), name), fields))
    return found


@pytest.mark.parametrize("check", list(checks()), ids=lambda c: c.__name__)
@pytest.mark.parametrize(("name", "strategy", "fields"), shipped(), ids=[name for name, _, _ in shipped()])
def test_contract(name, strategy, fields, check):
    check(strategy, fields | dict(strategy.small))


def test_every_strategy_file_has_a_yaml():
    files = {p.stem for p in (CONF.parents[1] / "strategies").glob("[!_]*.py")}
    targets = {yaml.safe_load(p.read_text())["_target_"].split(".")[1] for p in CONF.glob("*.yaml")}
    assert files == targets
