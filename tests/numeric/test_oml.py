"""OML: its meta-gradient against finite differences, its phases, and meta-training on the Omniglot files."""

from copy import deepcopy
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cl.errors import ConfigError
from cl.learners.mlp import MLP
from cl.seeding import generator
from cl.streams.sources import Omniglot
from cl.testing.tiny import TinyStream, engine, state
from cl.trajectories import renew, trajectory
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


def test_the_meta_loss_is_that_of_the_held_out_samples_after_sgd_along_the_trajectory():
    """Against torch's SGD on a copy: 4 samples are learned one by one, the loss is that of the other 5."""
    with torch.random.fork_rng():
        strategy = engine(OML, TinyStream("class"), inner_rate=0.3, meta_steps=0).strategy
        torch.manual_seed(0)
        z, y = torch.rand(9, 16), torch.tensor([0, 0, 1, 1, 0, 1, 0, 1, 0])
        upper = Upper(strategy.learner, 1, nn.Linear(16, 2))
    found = strategy.meta_loss(z, y, upper, 4).item()
    copy = deepcopy(upper)
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.3)
    for j in range(4):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(copy(z[j : j + 1]), y[j : j + 1]))
        optimizer.step()
    assert found == pytest.approx(F.cross_entropy(copy(z[4:]), y[4:]).item(), rel=1e-5)
    assert found != pytest.approx(F.cross_entropy(copy(z), y).item(), rel=1e-2)


def test_trajectories_go_class_after_class_and_are_judged_by_other_samples():
    y = torch.arange(60) % 5
    members = [(y == c).nonzero()[:, 0] for c in range(5)]
    seen = set()
    for step in range(50):
        path, others = trajectory(members, 60, generator(0, "test", step), 3, 4, 2, random=20)
        classes = y[path].reshape(3, 4)
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0].tolist())) == 3
        assert y[others[:6]].tolist() == classes[:, :2].flatten().tolist()
        assert len(set(path.tolist())) == 12
        assert not set(path.tolist()) & set(others.tolist())
        assert len(others) == 26
        seen |= set(others[6:].tolist())
    assert len(seen) == 60, "the random ones are of all classes"
    again = trajectory(members, 60, generator(0, "test", 49), 3, 4, 2, random=20)
    assert torch.equal(path, again[0])
    assert torch.equal(others, again[1])


def test_only_the_rows_of_the_trajectory_are_drawn_anew():
    with torch.random.fork_rng():
        head = nn.Linear(5000, 6)
    before = state(head)
    renew(head, torch.tensor([1, 4]), generator(0, "test"))
    same = (head.weight == before["weight"]).all(1)
    assert same.tolist() == [True, False, True, True, False, True]
    assert torch.equal(head.bias, before["bias"])
    drawn = head.weight[[1, 4]]
    assert drawn.var().item() * 5000 == pytest.approx(2, rel=0.05)
    assert abs(drawn.mean().item()) < 0.001


def test_meta_training_begins_every_trajectory_with_new_rows(monkeypatch):
    """Seen from the first step on: the rows of the trajectory's classes alone differ from the step before."""
    heads, rows = [], []

    def spy(self, z, y, upper, steps):
        heads.append(upper.head.weight.detach().clone())
        rows.append(set(y[:steps].tolist()))
        return upper(z).sum() * 0.0  # no gradient: Adam leaves the weights

    monkeypatch.setattr(OML, "meta_loss", spy)
    for reset in (True, False):
        made = engine(OML, TinyStream("class"), meta_steps=4, classes=1, reset=reset)
        made.begin(0)
        found = heads[-4:]
        changed = [set((a != b).any(1).nonzero()[:, 0].tolist()) for a, b in pairwise(found)]
        assert changed == (rows[-3:] if reset else [set()] * 3)


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


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_representation_is_in_evaluation_mode(freeze):
    made = engine(OML, TinyStream("class"), meta_steps=0, freeze=freeze, plastic=1)
    lower, upper = made.strategy.train().learner.blocks
    assert [module.training for module in lower.modules()] == [not freeze] * len(list(lower.modules()))
    assert all(module.training for module in upper.modules())


def images(info):
    return MLP(info.input_shape, info.n_classes, hidden=(64, 64))


class Drawings:
    """A source of given images (N, 1, 4, 4)."""

    def __init__(self, x, y):
        self.table = SimpleNamespace(train=SimpleNamespace(x=x, y=y), peak=1.0)

    def load(self, root, download):
        return self.table


def test_meta_training_on_the_images_of_the_stream_is_refused():
    stream = TinyStream("class")
    own = stream[0].train
    x, y = own.storage[own.index].clone(), own.labels
    other = Drawings(x + 1, y)
    engine(OML, stream, make_learner=images, source=other).strategy.data(stream[0])
    other.table.train.x[-1] = x[0]
    with pytest.raises(ConfigError, match=r"`strategy\.source` null or of other images than the first task's"):
        engine(OML, stream, make_learner=images, source=other).strategy.data(stream[0])


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
        rows = torch.cat([(y == c).nonzero()[part, 0] for part in (slice(5), slice(5, 10)) for c in (3, 40, 80)])
        head = nn.Linear(64, int(y.max()) + 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        z = strategy.learner.blocks[0](x[rows])
        losses[steps] = strategy.meta_loss(z, y[rows], Upper(strategy.learner, 1, head), 15).item()
    assert losses[150] < losses[0]
