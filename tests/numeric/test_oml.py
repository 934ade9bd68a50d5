"""OML: its meta-gradient against finite differences, its phases, and meta-training on the Omniglot files."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cl.learners.mlp import MLP
from cl.streams.sources import Omniglot
from cl.testing.tiny import TinyStream, engine, state
from strategies.oml import OML, Upper


def meta(strategy, scale, second_order):
    """The meta-loss as a function of a factor on the first layer, in float64."""
    strategy.second_order = second_order
    torch.manual_seed(0)
    x, y = torch.rand(12, 16, dtype=torch.float64), torch.arange(12) % 3
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = nn.Linear(16, 3).double()
    learner = strategy.learner.double()
    upper = Upper(learner, 1, head)
    z = F.linear(x, scale * learner.blocks[0][1].weight, learner.blocks[0][1].bias).relu()
    return strategy.meta_loss(z, y, upper, 6)


def test_the_meta_gradient_goes_through_the_inner_steps():
    with torch.random.fork_rng():
        strategy = engine(OML, TinyStream("class"), inner_rate=0.5, meta_steps=0).strategy
        exact = {}
        for second_order in (True, False):
            scale = torch.ones((), dtype=torch.float64, requires_grad=True)
            (exact[second_order],) = torch.autograd.grad(meta(strategy, scale, second_order), scale)
        high, low = (meta(strategy, torch.tensor(1 + e, dtype=torch.float64), True) for e in (1e-5, -1e-5))
        numeric = (high - low).item() / 2e-5
    np.testing.assert_allclose(exact[True].item(), numeric, rtol=1e-4)
    assert abs(exact[False].item() - numeric) > 1e-3 * abs(numeric)


def test_representation_is_meta_trained_once_and_then_frozen():
    made = engine(OML, TinyStream("class"), meta_steps=5, classes=2, plastic=1)
    start = state(made.strategy.learner.blocks)
    made.run_task(0)
    first = state(made.strategy.learner.blocks)
    made.run_task(1)
    second = state(made.strategy.learner.blocks)
    lower = [n for n in start if n.startswith("0.")]
    assert not any(torch.equal(start[n], first[n]) for n in lower)
    assert all(torch.equal(first[n], second[n]) for n in lower)
    assert not torch.equal(first["1.0.weight"], second["1.0.weight"])


def images(info):
    return MLP(info.input_shape, info.n_classes, hidden=(64, 64))


@pytest.mark.slow
def test_meta_training_on_omniglot_lowers_the_meta_loss(data_root):
    losses = {}
    for steps in (0, 150):
        made = engine(
            OML, TinyStream("class"), make_learner=images, source=Omniglot(), root=str(data_root), download=False,
            meta_steps=steps, meta_rate=1e-3,
        )  # fmt: skip
        strategy = made.strategy
        x, y = strategy.data(made.stream[0])
        assert x.shape[1:] == (1, 4, 4)
        assert 0 <= float(x.min()) < float(x.max()) <= 1
        strategy.begin_task(made.stream[0])
        rows = torch.cat([(y == c).nonzero()[:5, 0] for c in (3, 40, 80)])
        head = nn.Linear(64, int(y.max()) + 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        z = strategy.learner.blocks[0](x[rows])
        losses[steps] = strategy.meta_loss(z, y[rows], Upper(strategy.learner, 1, head), 15).item()
    assert losses[150] < losses[0]
