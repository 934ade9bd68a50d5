"""Every strategy runs unchanged on every kind of learner, or says before any training that it cannot."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from cl.build import construct
from cl.cli.compose import compose
from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.learners.cnn import CNN
from cl.learners.mlp import MLP
from cl.learners.recurrent import GRU
from cl.learners.transformer import Transformer
from cl.strategy import Strategy
from cl.streams.base import StreamInfo
from cl.streams.sequences import GeneratedStream, PermutedCopy
from cl.testing import TinyStream
from cl.testing.tiny import KINDS, TinySequences, engine, state

CONF = Path(__file__).parents[2] / "conf" / "strategy"
LEARNERS = {
    "mlp": lambda info: MLP(info.input_shape, info.n_classes, hidden=(16, 16)),
    "cnn": lambda info: CNN(info.input_shape, info.n_classes, channels=(8,), hidden=(16,)),
    "batch norm": lambda info: MLP(info.input_shape, info.n_classes, hidden=(16, 16), norm="batch"),
    "dropout": lambda info: MLP(info.input_shape, info.n_classes, hidden=(16, 16), dropout=0.2),
    "gru": lambda info: GRU(info.input_shape, info.n_classes, hidden=16),
    "transformer": lambda info: Transformer(info.input_shape, info.n_classes, width=16, heads=2),
}


def shipped() -> dict[str, tuple[type[Strategy], dict[str, Any]]]:
    found = {}
    for path in sorted(CONF.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text())
        if "defaults" in fields:  # made of other yamls
            fields = compose([f"strategy={path.stem}"])["strategy"]
        fields = {name: construct(value, f"strategy.{name}") for name, value in fields.items()}
        module, _, name = fields.pop("_target_").rpartition(".")
        found[path.stem] = getattr(importlib.import_module(module), name), fields
    return found


STRATEGIES = shipped()


# What a strategy does not take; one that comes to refuse more shall not do so unnoticed.
REFUSED = {
    "gru": {"cbp", "gpm", "hat", "oml", "usage"},
    "transformer": {"cbp", "hat", "oml", "usage"},
    "batch norm": {"oml"},
}


def learner_of(name: str, info: StreamInfo) -> Learner:
    return LEARNERS[name](info)


@pytest.mark.parametrize("learner", list(LEARNERS))
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_runs_or_refuses(name, learner):
    strategy, fields = STRATEGIES[name]
    fields = fields | dict(strategy.small)
    scenario = next(s for s in ("task", "class", "domain", "online") if s in strategy.scenarios)
    stream = TinyStream(scenario, tasks=2, samples=24)
    refusal = ""
    try:
        made = engine(strategy, stream, make_learner=lambda info: learner_of(learner, info), epochs=2, **fields)
    except ConfigError as error:
        refusal = str(error)
    assert bool(refusal) == (name in REFUSED.get(learner, ())), refusal or "no longer refused"
    if refusal:
        assert "learner" in refusal
        assert type(learner_of(learner, stream.info)).__name__ in refusal
        return
    results = made.run()
    assert np.isfinite(results.accuracy).all()
    assert np.isfinite(results.train_loss).all()
    if strategy.sees == "current" and name != "frozen":
        gain = np.mean([results.accuracy[0, k + 1, k] - results.accuracy[0, 0, k] for k in range(2)])
        assert gain > -0.25, f"learning made it worse: {results.accuracy.round(2).tolist()}"


@pytest.mark.parametrize("name", [name for name, (strategy, _) in STRATEGIES.items() if strategy.neutral is not None])
def test_neutral_settings_are_fine_tuning_with_normalisation_too(name):
    strategy, fields = STRATEGIES[name]
    fields = fields | dict(strategy.small) | dict(strategy.neutral)
    scenario = next(s for s in ("task", "class", "domain", "online") if s in strategy.scenarios)
    runs = []
    for make, own in ((Strategy, {}), (strategy, fields)):
        stream = TinyStream(scenario, tasks=2, samples=24)
        made = engine(make, stream, make_learner=LEARNERS["batch norm"], epochs=2, **own)
        made.run()
        runs.append(state(made.strategy.learner))
    for key, value in runs[0].items():
        torch.testing.assert_close(runs[1][key], value, rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_runs_or_refuses_where_answers_are_in_bits(name):
    """The head has one row a bit there, and not one an output."""
    strategy, fields = STRATEGIES[name]
    fields = fields | dict(strategy.small)
    scenario = next(s for s in ("task", "class", "domain", "online") if s in strategy.scenarios)
    problem = PermutedCopy(2, 1, 4, "bits", hold=False, blanks=False, answers="bits")
    stream = GeneratedStream([problem], 2, scenario, samples=24, test_samples=10)

    def gru(info: StreamInfo) -> Learner:
        return GRU(info.input_shape, info.n_classes, hidden=16, target=info.target, codes=info.codes)

    refusal = ""
    try:
        made = engine(strategy, stream, make_learner=gru, epochs=2, **fields)
    except ConfigError as error:
        refusal = str(error)
    if refusal:
        assert "learner" in refusal or "stream" in refusal
        return
    results = made.run()
    assert np.isfinite(results.accuracy).all()
    assert np.isfinite(results.train_loss).all()


def small_gru(info: StreamInfo) -> Learner:
    facts = {"vocabulary": info.vocabulary, "padded": info.padded, "target": info.target}
    return GRU(info.input_shape, info.n_classes, hidden=8, embedding=8, **facts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_runs_or_refuses_sequences(name, kind):
    """Tokens, padding, a label a step and regression: it runs, or refuses in one line before any training."""
    strategy, fields = STRATEGIES[name]
    fields = fields | dict(strategy.small)
    known = [s for s in ("task", "class", "domain", "online") if s in strategy.scenarios]
    scenarios = [s for s in known if kind != "real" or s in ("domain", "online")]
    for scenario in scenarios[:1]:
        refusal = ""
        try:
            made = engine(strategy, TinySequences(kind, scenario), make_learner=small_gru, epochs=2, **fields)
        except ConfigError as error:
            refusal = str(error)
        if refusal:
            assert re.search(r"`(stream|learner)\b", refusal)
            assert "\n" not in refusal
            return
        results = made.run()
        assert np.isfinite(results.accuracy).all()
        assert np.isfinite(results.train_loss).all()


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("kind", ["padded", "steps"])
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_padding_never_changes_what_is_learned(name, kind, double):
    """Four more steps of padding: the same losses, gradients (by the weights they lead to) and importances."""
    strategy, fields = STRATEGIES[name]
    fields = fields | dict(strategy.small)
    scenario = next(s for s in ("task", "class", "domain", "online") if s in strategy.scenarios)
    runs = []
    for padding in (0, 4):
        stream = TinySequences(kind, scenario, padding=padding)
        try:
            runs.append(engine(strategy, stream, make_learner=small_gru, epochs=2, **fields))
        except ConfigError:
            assert padding == 0
            return  # refused, see above
    short, long = (made.run() for made in runs)
    np.testing.assert_allclose(long.train_loss, short.train_loss, rtol=1e-9)
    np.testing.assert_allclose(long.loss, short.loss, rtol=1e-5)  # added up in single precision
    np.testing.assert_array_equal(long.accuracy, short.accuracy)
    a, b = (state(made.strategy) for made in runs)
    assert a.keys() == b.keys()
    for key, value in a.items():
        other = b[key]
        if value.shape != other.shape:  # stored samples
            assert ".memory." in f".{key}"
            other = other[:, : value.shape[1]]
        torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-9)


def linear(info):
    return MLP(info.input_shape, info.n_classes, hidden=())


NO_HIDDEN = {"cbp", "gpm", "hat", "oml", "orthogonal", "packnet", "pruning", "usage"}  # act on hidden units or weights


@pytest.mark.parametrize("name", shipped())
def test_a_linear_model_learns_or_is_refused(name):
    strategy, fields = shipped()[name]
    stream = TinyStream(strategy.scenarios[0], samples=40)
    options = {"epochs": 4, **fields, **strategy.small}
    if name in NO_HIDDEN:
        with pytest.raises(ConfigError, match=r"^Expected `(learner|strategy\.plastic)`"):
            engine(strategy, stream, linear, **options)
    else:
        made = engine(strategy, stream, linear, **options)
        assert isinstance(made.strategy.learner.head, nn.Linear)
        assert not list(made.strategy.learner.blocks.parameters())
        assert np.diagonal(made.run().accuracy[0, 1:]).mean() > 0.7
