"""Optimisers work the same without torch's compiler, and a run does not import it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cl.cli.compose import compose
from cl.compiler import light_optimisers, light_step
from cl.results import Results
from cl.run import run

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
    environment = {**os.environ, "CXX": str(tmp_path / "missing")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "use training.compile=false" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_compiled_run_ends_as_the_plain_one(tmp_path, replicas):
    words = ["stream=split_digits", "strategy=ewc", "learner.hidden=[16]", f"replicas={replicas}", f"output={tmp_path}"]
    ended = []
    for choice in ("false", "true"):
        outcomes = run(compose([*words, "tracker=files", f"training.compile={choice}"]))
        ended.append([Results.load(o.path) for o in outcomes])
    for plain, fast in zip(*ended, strict=True):
        np.testing.assert_allclose(fast.train_loss, plain.train_loss, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(fast.accuracy, plain.accuracy, atol=0.03)
