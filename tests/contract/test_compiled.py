"""Compiled, the steps of every strategy that ships do what they do plain: loss, gradients, updates, memories."""

import dataclasses
from functools import partial

import pytest
import torch

from cl.testing import TinyStream
from cl.testing.tiny import engine, state
from tests.contract.test_strategies import shipped

CASES = [(name, kind, fields, s) for name, kind, fields in shipped() for s in ("task", "class") if s in kind.scenarios]


@pytest.fixture
def traced(monkeypatch):
    """Translate without a C++ compiler, run operation by operation what is traced; return what counts the graphs."""
    import torch._dynamo

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.set_default_dtype(torch.float64)  # where rounding cannot hide a difference
    yield torch._dynamo.utils.counters["stats"]
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "strategy", "fields", "scenario"), CASES, ids=[f"{n}-{s}" for n, _, _, s in CASES])
def test_compiled_steps_are_the_plain_ones(traced, name, strategy, fields, scenario):
    ended, told = [], []
    for choice in (False, True):
        one = engine(strategy, TinyStream(scenario, samples=40), epochs=2, **fields | dict(strategy.small))
        one.options = dataclasses.replace(one.options, compile=choice)
        one.update.compile, one.update.tell = choice, told.append
        one.run()
        ended.append(state(one.strategy))
    plain, fast = ended
    assert plain.keys() == fast.keys()
    for key in plain:
        torch.testing.assert_close(fast[key], plain[key], rtol=1e-9, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")
    own_step = [line for line in told if "has a step of its own" in line]
    assert told == own_step
    learned = (
        sum(one.record.task_steps) > 0 and name != "lamaml"
    )  # which takes its gradients in an inner loop of its own
    assert (traced["unique_graphs"] > 0) == learned
