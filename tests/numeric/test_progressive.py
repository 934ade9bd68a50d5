"""Progressive networks against the paper's formula worked out by hand, and for every kind of block."""

import numpy as np
import pytest
import torch
from torch import nn

from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.learners.mlp import MLP
from cl.testing.tiny import TinyStream, engine, state, train
from strategies.progressive import Progressive


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return (x + self.layer(x)).relu()


class Convolutions(Learner):
    """A plain, a residual and a fully connected block, with batch normalisation."""

    def __init__(self, n_classes):
        super().__init__()
        plain = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
        last = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 4, 7), nn.ReLU())
        self.blocks = nn.ModuleList([plain, Residual(5), last])
        self.head = nn.Linear(7, n_classes)
        self.widths = (5, 5, 7)


def grown(adapter, make=None):
    made = engine(Progressive, TinyStream("task"), **({} if make is None else {"make_learner": make}), adapter=adapter)
    for k in range(3):
        made.strategy.grow(k)
        made.strategy.enter(k)
    return made.strategy.eval()


@pytest.mark.parametrize("adapter", ["nonlinear", "linear"])
def test_third_column_is_the_paper_formula(adapter):
    strategy = grown(adapter)
    x = torch.rand(5, 1, 4, 4)

    def value(tensor):
        return tensor.detach().numpy()

    def linear(layer, h):
        return h @ value(layer.weight).T + (0 if layer.bias is None else value(layer.bias))

    def lateral(module, below):
        scaled = np.concatenate([value(a) * h for a, h in zip(module.alpha, below, strict=True)], 1)
        z = scaled @ value(module.reduce).T
        return linear(module.project, np.maximum(z, 0) if adapter == "nonlinear" else z)

    hidden = []
    for c, column in enumerate([*strategy.earlier, strategy.learner]):
        first = np.maximum(linear(column.blocks[0][1], x.flatten(1).numpy()), 0)
        before = linear(column.blocks[1][0], first)
        if c > 0:
            before = before + lateral(strategy.laterals[c - 1][0], [h[0] for h in hidden])
        second = np.maximum(before, 0)
        out = linear(column.head, second)
        if c > 0:
            out = out + lateral(strategy.laterals[c - 1][1], [h[1] for h in hidden])
        hidden.append((first, second))
        np.testing.assert_allclose(value(strategy.column(c, x)), out, rtol=1e-4, atol=1e-6)


def test_every_column_starts_from_weights_of_its_own():
    strategy = grown("nonlinear")
    columns = [*strategy.earlier, strategy.learner]
    for layer in ("blocks.0.1.weight", "head.weight"):
        weights = [column.get_parameter(layer) for column in columns]
        assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_earlier_columns_stay_bit_equal_and_never_forget():
    made = engine(Progressive, TinyStream("task"), make_learner=lambda info: Convolutions(info.n_classes), epochs=8)
    made.run_task(0)
    before = state(made.strategy.learner)
    made.run_task(1)
    made.run_task(2)
    after = state(made.strategy.earlier[0])
    assert all(torch.equal(before[n], after[n]) for n in before)  # running statistics included
    assert made.record.accuracy[1, 0] == made.record.accuracy[3, 0]
    assert np.diagonal(made.record.accuracy[1:]).min() > 0.8


def test_without_adapters_the_columns_are_separate():
    strategy = grown("none")
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(strategy.column(1, x), strategy.earlier[1](x))
    assert sum(p.numel() for p in strategy.laterals.parameters()) == 0


def test_a_lateral_of_zero_changes_nothing():
    strategy = grown("nonlinear", lambda info: Convolutions(info.n_classes))
    x = torch.rand(3, 1, 4, 4)
    with_laterals = strategy.column(2, x)
    for module in strategy.laterals[1]:
        module.alpha.data.zero_()
    assert not torch.equal(with_laterals, strategy.learner(x))
    torch.testing.assert_close(strategy.column(2, x), strategy.learner(x))


def test_laterals_learn():
    strategy = train(Progressive, TinyStream("task"), epochs=2).strategy
    start = grown("nonlinear")
    for mine, first in zip(strategy.laterals[1], start.laterals[1], strict=True):
        assert not torch.equal(mine.alpha, first.alpha)
        assert not torch.equal(mine.reduce, first.reduce)
        assert not torch.equal(mine.project.weight, first.project.weight)


def test_a_learner_without_plain_blocks_is_refused():
    class Odd(MLP):
        def activations(self, x, gates=None):
            return super().activations(x, gates)

    with pytest.raises(ConfigError, match="learner"):
        engine(Progressive, TinyStream("task"), make_learner=lambda i: Odd(i.input_shape, i.n_classes, hidden=[4]))
