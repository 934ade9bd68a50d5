"""A field that a class calls unused beside others (`only_with`) changes nothing there, and something elsewhere."""

import importlib
from pathlib import Path

import pytest
import torch
import yaml

from cl.build import unused
from cl.strategy import Strategy
from cl.testing.tiny import TinyStream, state, train

CONF = Path(__file__).parents[2] / "conf" / "strategy"
SMALL = {"memory_size": 40}
DRAWN = {**SMALL, "replay_batch": 8}
NONE = {"replay_batch": 0}
STEP, MEAN, SUM = {**SMALL, "replay": "step"}, {**DRAWN, "weighting": "mean"}, {**DRAWN, "weighting": "sum"}
# Strategy, field, two values, settings beside which it is unused, settings beside which it is used.
CASES = [
    *((name, "replay_weight", (0.5, 0.9), MEAN, SUM) for name in ("er", "mir", "gss")),
    ("er", "memory_size", (40, 20), NONE, DRAWN),
    ("er", "memory", ("reservoir", "ring"), NONE, DRAWN),
    ("er", "draw", ("uniform", "balanced"), NONE, None),
    ("er", "weighting", ("mean", "sum"), NONE, DRAWN),
    ("rehearsal", "replay_batch", (8, 4), SMALL, STEP),
    ("rehearsal", "draw", ("uniform", "balanced"), SMALL, None),
    ("rehearsal", "weighting", ("mean", "sum"), SMALL, STEP),
    ("rehearsal", "replay_weight", (0.5, 0.9), SMALL, {**STEP, "weighting": "sum"}),
    ("dgr", "temperature", (1.0, 3.0), {"targets": "hard"}, {"targets": "soft"}),
    ("dgr", "squared_temperature", (True, False), {"targets": "hard"}, {"targets": "soft"}),
    ("dgr", "replay_weight", (0.5, 0.9), {"weighting": "tasks"}, {"weighting": "share"}),
    ("icarl", "temperature", (2.0, 3.0), {**SMALL, "distillation": False}, SMALL),
    ("rwalk", "samples", (5, 9), {"fisher": "running"}, {"fisher": "empirical"}),
    ("packnet", "retrain_lr", (0.1, 0.2), {"retrain_epochs": 0}, {"retrain_epochs": 2}),
    ("packnet", "retrain_batch_size", (8, 16), {"retrain_epochs": 0}, {"retrain_epochs": 2}),
    ("progressive", "scale", (0.1, 0.5), {"adapter": "none"}, {"adapter": "linear"}),
    ("lamaml", "alpha_rate", (0.1, 0.5), {**SMALL, "learn": "none"}, {**SMALL, "learn": "alpha"}),
    ("lamaml", "rate", (0.2, 0.5), {**SMALL, "learn": "alpha"}, {**SMALL, "learn": "sync"}),
]
IDS = [f"{case[0]}-{case[1]}" for case in CASES]


def kind(name: str) -> type[Strategy]:
    module, _, target = yaml.safe_load((CONF / f"{name}.yaml").read_text())["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), target)


def ends(strategy, fields):
    stream = TinyStream(next(s for s in ("task", "class", "domain") if s in strategy.scenarios))
    return state(train(strategy, stream, epochs=2, **fields).strategy.learner)


def same(a, b):
    return all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(("name", "field", "values", "idle", "busy"), CASES, ids=IDS)
def test_it_changes_nothing_where_it_is_called_unused(name, field, values, idle, busy):
    strategy, (one, two) = kind(name), values
    lines = unused(strategy, {**idle, field: two}, "strategy")
    assert len(lines) == 1
    assert lines[0].startswith(f"strategy.{field} has no effect with strategy.")
    assert same(ends(strategy, {**idle, field: one}), ends(strategy, {**idle, field: two}))
    if busy is not None:
        assert unused(strategy, {**busy, field: two}, "strategy") == []
        assert not same(ends(strategy, {**busy, field: one}), ends(strategy, {**busy, field: two}))


def test_every_claim_is_tried():
    found = {p.stem: kind(p.stem) for p in CONF.glob("*.yaml") if p.stem != "combined"}
    claims = {(n, f) for n, k in found.items() for f in vars(k).get("only_with", {})}
    assert claims <= {(case[0], case[1]) for case in CASES}


def test_defaults_and_unknown_fields_are_never_called_unused():
    assert unused(kind("er"), {"replay_weight": 1.0, "weighting": "mean"}, "strategy") == []
    assert unused(kind("er_ace"), {"replay_weight": 0.5}, "strategy") == []
