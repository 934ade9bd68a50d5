"""Optimisers work the same without torch's compiler, and a run does not import it."""

import hashlib
import logging
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from cl.cli.compose import compose
from cl.compiler import light_optimisers, light_step
from cl.population import Population
from cl.results import Results
from cl.run import run
from cl.seeding import integers, step_keys, uniform
from cl.strategy import Strategy
from strategies.er import ER
from tests.unit.test_check_strategy import Decayed
from tests.unit.test_population import close, make

RUN = """
import sys
from cl.cli.compose import compose
from cl.run import run
words = ["stream=split_digits", "output=" + sys.argv[1], "training.epochs=1", "tracker=files"]
assert [o.status for o in run(compose(words))] == ["complete"]
print(sorted({"torch._dynamo", "torchvision", "sympy"} & set(sys.modules)))
"""


def test_a_run_imports_neither_the_compiler_nor_torchvision(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def parameter():
    p = torch.nn.Parameter(torch.linspace(-1, 1, 5))
    p.grad = torch.linspace(1, 2, 5)
    return p


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad])
def test_light_step_is_the_step(kind):
    one, two = parameter(), parameter()
    usual, light = kind([one], lr=0.1), kind([two], lr=0.1)
    for _ in range(3):
        usual.step()
        light_step(light)()
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.linspace(-1, 1, 5))


def test_hooks_and_schedulers_keep_the_whole_step():
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    assert light_step(optimizer) != optimizer.step
    called = []
    handle = optimizer.register_step_post_hook(lambda *a: called.append(1))
    light_step(optimizer)()
    assert called == [1]
    handle.remove()
    torch.optim.lr_scheduler.ConstantLR(optimizer)
    assert light_step(optimizer) == optimizer.step


class Own(torch.optim.SGD):
    """Not torch's own."""


def test_somebody_elses_optimiser_keeps_its_step():
    optimizer = Own([parameter()], lr=0.1)
    assert light_step(optimizer) == optimizer.step


def test_torch_is_left_as_it_was():
    function = torch.optim.Optimizer.zero_grad.__wrapped__
    before = dict(vars(function))
    with light_optimisers(), light_optimisers():
        optimizer = torch.optim.Adam([parameter()], lr=0.1)
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
    assert dict(vars(function)) == before


def test_a_machine_that_cannot_compile_is_told_so(tmp_path):
    command = [sys.executable, "-m", "cl.cli.main", "train", "training.compile=true", f"output={tmp_path}"]
    environment = {**os.environ, "CXX": str(tmp_path / "missing"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "use training.compile=false" in done.stderr.splitlines()[-1]


class Opaque(Strategy):
    """Takes a number in its loss from where no compiler looks."""

    def penalty(self):
        return int.from_bytes(hashlib.md5(b"a").digest()[:1], "big") * 1e-4 * self.learner.head.bias.square().sum()


class ByNumber(Decayed):
    """Its strength differs between replicas."""

    def __init__(self, learner, info):
        super().__init__(learner, info, 0.01 * (info.seed + 1))


@pytest.fixture
def translated(monkeypatch):
    """Compile without a C++ compiler; return what counts the programs."""
    import torch._dynamo

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch._dynamo.utils.counters["stats"]


UNCOMPILED = [(Opaque, "Opaque is not compiled: "), (ByNumber, "ByNumber is not compiled: the replicas of this")]


@pytest.mark.parametrize(("strategy", "line"), [(partial(ER, memory_size=40), None), *UNCOMPILED])
def test_a_population_is_compiled_or_says_why_not(translated, strategy, line):
    """Seeded draws of a step can be compiled; the outcome is that of the plain population."""
    options = {"strategy": strategy, "epochs": 1}
    plain, fast = (
        Population([make(seed, compile=compile, **options) for seed in range(2)], always=True)
        for compile in (False, True)
    )
    for population in (plain, fast):
        population.run()
    close(plain.engines, fast.engines)
    assert plain.notes == []
    if line is None:
        assert fast.notes == []
        assert translated["unique_graphs"] > 0
    else:
        [note] = fast.notes
        assert note.startswith(f"training.compile: {line}")
        assert "\n" not in note
        assert translated["unique_graphs"] == 0


def test_what_stays_uncompiled_alone_is_told_once(translated, caplog):
    with caplog.at_level(logging.WARNING):
        make(0, strategy=Opaque, epochs=1, compile=True).run()
    assert [r.message.split(": ")[1] for r in caplog.records] == ["Opaque is not compiled"]


@pytest.mark.slow
def test_compiled_draws_are_the_same():
    """The compiler once rounded the counter of the hash, and wrote outside of its memory."""
    key = step_keys(0, 0, 0, 1)[0]

    def draw(key):
        return uniform(key, (50, 11), "a"), integers(key, (7,), 1000, "b")

    assert all(map(torch.equal, draw(key), torch.compile(draw, fullgraph=True)(key)))


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_compiled_run_ends_as_the_plain_one(tmp_path, monkeypatch, replicas):
    monkeypatch.setattr("cl.population.population.FEW", 2)
    words = ["stream=split_digits", "strategy=ewc", "learner.hidden=[16]", f"replicas={replicas}", f"output={tmp_path}"]
    ended = []
    for choice in ("false", "true"):
        outcomes = run(compose([*words, "tracker=files", f"training.compile={choice}"]))
        ended.append([Results.load(o.path) for o in outcomes])
    for plain, fast in zip(*ended, strict=True):
        np.testing.assert_allclose(fast.train_loss, plain.train_loss, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(fast.accuracy, plain.accuracy, atol=0.03)
