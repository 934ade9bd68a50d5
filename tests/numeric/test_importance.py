"""Importance estimates against loops over single samples, closed forms and laws of expectation."""

import dataclasses
import time

import pytest
import torch
from torch import nn

from cl.errors import ConfigError
from cl.importance import FISHERS, fisher, output_sensitivity
from cl.learners.base import Learner
from cl.learners.cnn import CNN
from cl.learners.mlp import MLP
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU, LSTM, RNN
from cl.learners.resnet import ResNet18
from cl.learners.transformer import Transformer
from cl.seeding import seeded
from cl.strategy import Strategy
from cl.streams.base import StreamInfo
from cl.streams.data import Data
from cl.testing import TinyStream
from cl.testing.tiny import TinySequences


class Recurrent(Learner):
    """A GRU over the rows of an image: fused, without a batching rule."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.head = nn.Linear(5, 6)

    def forward(self, x, gates=None):
        return self.head(self.gru(x.flatten(1, 2))[0][:, -1])


class Unrolled(Learner):
    """A cell whose linear layer is called once a time step, and a layer that sees (B, T, D)."""

    def __init__(self):
        super().__init__()
        self.lift, self.cell, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 6)

    def forward(self, x, gates=None):
        lifted = self.lift(x.flatten(1, 2))
        h = torch.zeros_like(lifted[:, 0])
        for t in range(lifted.shape[1]):
            h = torch.tanh(lifted[:, t] + self.cell(h))
        return self.head(h)


class Tied(Learner):
    """One weight in two layers, an in-place activation, and a parameter used outside any layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 6)
        self.b.weight = self.a.weight
        self.act = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.rand(16) + 0.5)
        self.unused = nn.Parameter(torch.rand(3))

    def forward(self, x, gates=None):
        return self.head(self.scale * self.act(self.b(self.act(self.a(x.flatten(1))))))


class Grouped(Learner):
    """One- and two-dimensional convolutions with groups, strides, dilation and asymmetric kernels."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 4, (3, 2), stride=(1, 2), padding=(1, 0), bias=False)
        self.two = nn.Conv2d(4, 6, 3, groups=2, padding=2, dilation=2)
        self.three = nn.Conv1d(6, 4, 3, padding=1, stride=2, groups=2)
        self.head = nn.Linear(16, 6)

    def forward(self, x, gates=None):
        x = self.two(torch.relu(self.one(x)))
        return self.head(torch.tanh(self.three(x.flatten(2))).flatten(1))


class Looked(Learner):
    """Tokens looked up twice in one table, whose row of padding stays; the table also gives the outputs' scale."""

    def __init__(self, tied=False):
        super().__init__()
        self.table, self.tied = nn.Embedding(3, 5, padding_idx=0), tied
        self.norm, self.head = nn.LayerNorm(5), nn.Linear(5, 6)

    def forward(self, x, gates=None):
        tokens = (x.flatten(1) > 0).long() + (x.flatten(1) > 0.5).long()
        found = self.norm(self.table(tokens)) + self.table(tokens.flip(1))
        pooled = (torch.arange(16.0)[:, None] * found).mean(1)
        return self.head(pooled * self.table.weight[1] if self.tied else pooled)


LEARNERS = {
    "mlp": lambda: MLP((1, 4, 4), 6, hidden=(12, 8)),
    "mlp, layer norm": lambda: MLP((1, 4, 4), 6, hidden=(12, 8), norm="layer"),
    "mlp, batch norm": lambda: MLP((1, 4, 4), 6, hidden=(12, 8), norm="batch"),
    "cnn, group norm": lambda: CNN((1, 4, 4), 6, channels=(4, 6), norm="group"),
    "grouped": Grouped,
    "recurrent": Recurrent,
    "unrolled": Unrolled,
    "tied": Tied,
    "looked up": Looked,
    "looked up, tied": lambda: Looked(tied=True),
    "rnn": lambda: RNN((1, 4, 4), 6, hidden=5),
    "gru, two layers, both ways": lambda: GRU((1, 4, 4), 6, hidden=5, layers=2, bidirectional=True),
    "lstm": lambda: LSTM((1, 4, 4), 6, hidden=5),
    "lstm, peepholes": lambda: LSTM((1, 4, 4), 6, hidden=5, peepholes=True),
    "transformer": lambda: Transformer((1, 4, 4), 6, width=8, heads=2, layers=1),
    "ntm": lambda: NTM((1, 4, 4), 6, hidden=5, slots=4, slot_size=3),
    "resnet": lambda: ResNet18((1, 4, 4), 6, width=4),
}
# Those whose every parameter has a formula: about one backward pass a score.
IN_CLOSED_FORM = [
    *("mlp", "mlp, layer norm", "mlp, batch norm", "cnn, group norm", "grouped", "unrolled", "looked up", "rnn"),
    *("gru, two layers, both ways", "lstm", "transformer", "ntm", "resnet"),
]


def build(learner="mlp", scenario="task", **change):
    torch.manual_seed(3)
    stream = TinyStream(scenario, samples=15)
    net = LEARNERS[learner]()
    if scenario == "domain":
        net.head = nn.Linear(net.head.in_features, 2)
    strategy = Strategy(net, stream.info).eval()
    strategy.enter(1)
    return strategy, stream[1].train


def one_by_one(strategy, data, score, power):
    """Mean over samples of the sum over scores of |gradient|^power, one backward pass at a time."""
    parameters = dict(strategy.learner.named_parameters())
    sums = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    for batch in data.in_order(1):
        for value in score(strategy.logits(batch.x, batch.task), batch):
            grads = torch.autograd.grad(value, parameters.values(), retain_graph=True, allow_unused=True)
            for name, g in zip(parameters, grads, strict=True):
                if g is not None:
                    sums[name] += g.double().abs() ** power
    return {n: v / len(data) for n, v in sums.items()}


def fisher_scores(strategy, kind):
    def scores(logits, batch):
        allowed = strategy.allowed(batch.task)
        classes = torch.arange(logits.shape[1]) if allowed is None else allowed.expand(1, -1)[0].nonzero()[:, 0]
        log_p = logits[0, classes].log_softmax(0)
        if kind == "exact":
            return list(log_p * log_p.detach().exp().sqrt())
        label = classes[log_p.argmax()] if kind == "predicted" else batch.y[0]
        return [log_p[int((classes == label).nonzero()[0, 0])]]

    return scores


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("kind", ["exact", "empirical", "predicted"])
def test_fisher_equals_a_loop_over_samples(learner, kind):
    strategy, data = build(learner)
    assert_close(fisher(strategy, data, kind), one_by_one(strategy, data, fisher_scores(strategy, kind), 2))


@pytest.mark.parametrize("learner", IN_CLOSED_FORM)
def test_no_sample_has_a_backward_pass_of_its_own(learner, monkeypatch):
    strategy, data = build(learner)
    monkeypatch.setattr("cl.importance.per_sample._general", None)
    found = fisher(strategy, data)
    assert all(value.sum() > 0 for name, value in found.items() if "bias" not in name), found


def test_long_sequences_are_taken_in_parts(monkeypatch):
    """Every step is kept for the way back, so that samples times steps are bounded."""
    strategy, data = build("gru, two layers, both ways")
    whole = fisher(strategy, data)
    monkeypatch.setattr("cl.importance.per_sample.STEPS", 4 * 3)  # of 4 rows
    sizes = []
    in_order = type(data).in_order

    def noted(self, batch_size):
        sizes.append(batch_size)
        return in_order(self, batch_size)

    monkeypatch.setattr(type(data), "in_order", noted)
    assert_close(fisher(strategy, data), {n: v.double() for n, v in whole.items()})
    assert sizes == [3]


@pytest.mark.parametrize(("learner", "norm"), [*((learner, "squared") for learner in LEARNERS), ("mlp", "plain")])
def test_output_sensitivity_equals_a_loop_over_samples(learner, norm):
    strategy, data = build(learner)

    def score(logits, batch):
        size = torch.linalg.vector_norm(logits[0, [2, 3]])
        return [size**2 if norm == "squared" else size]

    assert_close(output_sensitivity(strategy, data, norm=norm), one_by_one(strategy, data, score, 1))


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_heads_are_masked_as_in_training(scenario):
    strategy, data = build(scenario=scenario)
    found = fisher(strategy, data)
    assert_close(found, one_by_one(strategy, data, fisher_scores(strategy, "exact"), 2))
    rows = {"task": {2, 3}, "domain": {0, 1}, "class": {0, 1, 2, 3}}[scenario]
    assert set(found["head.weight"].sum(1).nonzero()[:, 0].tolist()) == rows


@pytest.mark.parametrize("kind", FISHERS)
def test_batch_size_does_not_matter(kind):
    strategy, data = build()
    whole = fisher(strategy, data, kind)
    for batch_size in (1, 7, 30):
        parts = fisher(strategy, data, kind, batch_size=batch_size)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-9)


def test_fisher_of_logistic_regression_in_closed_form():
    """For p = softmax(W x), sum_y p_y (d log p_y / d W_ci)^2 = p_c (1 - p_c) x_i^2."""
    torch.manual_seed(0)

    class Softmax(Learner):
        def __init__(self):
            super().__init__("single")
            self.head = nn.Linear(16, 6)

        def forward(self, x, gates=None):
            return self.head(x.flatten(1))

    stream = TinyStream("class")
    strategy = Strategy(Softmax(), stream.info)
    batch = next(stream[0].train.in_order(1000))
    p = strategy.logits(batch.x).softmax(1)
    expected = (p * (1 - p)).T @ batch.x.flatten(1).square() / len(p)
    torch.testing.assert_close(fisher(strategy, stream[0].train)["head.weight"], expected)


def test_the_mean_gradient_is_squared_as_a_whole():
    """One backward pass through the mean loss of all samples, squared; the empirical Fisher is never smaller."""
    strategy, data = build(scenario="class")
    batch = next(data.in_order(1000))
    loss = strategy.criterion(strategy.logits(batch.x, batch.task), batch)
    names = [n for n, p in strategy.learner.named_parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, [strategy.learner.get_parameter(n) for n in names])
    found, empirical = fisher(strategy, data, "mean_gradient"), fisher(strategy, data, "empirical")
    for name, g in zip(names, grads, strict=True):
        torch.testing.assert_close(found[name], g.square())
        assert (found[name] <= empirical[name] * (1 + 1e-4) + 1e-12).all()  # Jensen


def test_sampled_labels_have_the_exact_fisher_as_their_mean():
    strategy, data = build(scenario="class")
    many = Data(data.storage, data.index.repeat(400), data.labels.repeat(400), data.task)
    exact, sampled = fisher(strategy, data), fisher(strategy, many, "sampled")
    for name in exact:
        assert float((sampled[name] - exact[name]).norm() / exact[name].norm().clamp_min(1e-12)) < 0.06, name


@pytest.mark.parametrize("kind", ["exact", "sampled", "empirical"])
def test_regression_is_a_gaussian(kind):
    """With loss mean_d (f_d - y_d)^2 the Gaussian has variance D / 2, and F = (2 / D) sum_d (d f_d)^2."""
    torch.manual_seed(1)
    info = StreamInfo("domain", 1, 3, ((0, 1, 2),), (1, 4, 4), 0, True, "real")
    strategy = Strategy(MLP((1, 4, 4), 3, hidden=(8,), head="single"), info).eval()
    x, copies = torch.rand(4, 1, 4, 4), 1 if kind != "sampled" else 4000
    y = torch.randn(4, 3)
    data = Data(x, torch.arange(4).repeat(copies), y.repeat(copies, 1), 0)

    def scores(logits, batch):
        return [(logits - batch.y).square().mean()] if kind == "empirical" else list((2 / 3) ** 0.5 * logits[0])

    expected = one_by_one(strategy, data.subset(torch.arange(4)), scores, 2)
    for name, value in fisher(strategy, data, kind).items():
        tolerance = 0.06 if kind == "sampled" else 1e-5
        assert float((value - expected[name]).norm() / expected[name].norm()) < tolerance, name
    with pytest.raises(ConfigError, match="fisher"):
        fisher(strategy, data, "predicted")


def test_time_steps_add_up_and_steps_without_a_target_count_for_nothing():
    torch.manual_seed(2)

    class Steps(Learner):
        def __init__(self):
            super().__init__("single")
            self.head = nn.Linear(4, 3)

        def forward(self, x, gates=None):
            return self.head(x)

    info = StreamInfo("domain", 1, 3, ((0, 1, 2),), (5, 4), 0, True, "steps")
    strategy = Strategy(Steps(), info)
    x, y = torch.randn(6, 5, 4), torch.randint(0, 3, (6, 5))
    y[:, 3:] = -100
    data = Data(x, torch.arange(6), y, 0)
    p = strategy.logits(x)[:, :3].softmax(-1)  # each of the 3 steps has weight 1/3 in the loss
    expected = torch.einsum("ntc,nti->ci", p * (1 - p), x[:, :3].square()) / 9 / 6
    torch.testing.assert_close(fisher(strategy, data)["head.weight"], expected)
    x = torch.cat([x[:, :3], torch.full_like(x[:, 3:], 7.0)], 1)  # inputs without a target
    changed = Data(x, torch.arange(6), y, 0)
    torch.testing.assert_close(fisher(strategy, changed, "sampled"), fisher(strategy, data, "sampled"))


def test_outputs_at_padded_steps_are_no_part_of_the_sensitivity():
    found = []
    for padding in (0, 3):
        stream = TinySequences("steps", "domain", padding=padding)
        with seeded(0, "learner"):
            learner = GRU(stream.info.input_shape, 2, hidden=5, vocabulary=9, embedding=4, target="steps", padded=True)
        found.append(output_sensitivity(Strategy(learner, stream.info).eval(), stream[0].train))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-7)


def test_a_subset_is_drawn_by_the_seed_and_nothing_touches_the_global_generator():
    strategy, data = build()
    before = torch.get_rng_state()
    some = fisher(strategy, data, "sampled", samples=10)
    assert torch.equal(before, torch.get_rng_state())
    again = fisher(strategy, data, "sampled", samples=10)
    everything = fisher(strategy, data, "sampled")
    assert all(torch.equal(some[n], again[n]) for n in some)
    assert any(not torch.equal(some[n], everything[n]) for n in some)
    strategy.info = dataclasses.replace(strategy.info, seed=strategy.info.seed + 1)
    for samples, before in ((10, some), (None, everything)):  # other samples, other labels
        other = fisher(strategy, data, "sampled", samples=samples)
        assert any(not torch.equal(other[n], before[n]) for n in other)
    with pytest.raises(ConfigError, match="samples"):
        fisher(strategy, data, samples=0)


def test_frozen_parameters_have_no_importance():
    strategy, data = build()
    strategy.learner.blocks[0].requires_grad_(False)
    found = fisher(strategy, data)
    assert not any(n.startswith("blocks.0") for n in found)
    assert {"blocks.1.0.weight", "head.weight", "head.bias"} <= set(found)


def test_chunks_of_samples_add_up(monkeypatch):
    strategy, data = build("grouped")
    whole = fisher(strategy, data)
    monkeypatch.setattr("cl.importance.layers.CHUNK", 2 * 6 * 18)
    assert_close(fisher(strategy, data), {n: v.double() for n, v in whole.items()})


def test_a_layer_costs_about_one_backward_pass_and_not_one_a_sample():
    """Counts backward passes instead of seconds: one a score and batch, none a sample."""
    strategy, data = build()
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    handle = strategy.learner.head.register_full_backward_hook(count)
    fisher(strategy, data, "empirical", batch_size=10)
    handle.remove()
    assert calls == len(data) // 10


@pytest.mark.slow
def test_speed_on_mlp_400_400(capsys):
    """Prints the ratio that the documentation quotes; asserts only the results' equality."""
    torch.manual_seed(0)
    info = StreamInfo("domain", 1, 10, (tuple(range(10)),), (1, 28, 28), 0, True)
    strategy = Strategy(MLP((1, 28, 28), 10), info).eval()
    data = Data(torch.rand(512, 1, 28, 28), torch.arange(512), torch.randint(0, 10, (512,)), 0)
    started = time.perf_counter()
    fast = fisher(strategy, data, "empirical")
    middle = time.perf_counter()
    slow = one_by_one(strategy, data, fisher_scores(strategy, "empirical"), 2)
    ended = time.perf_counter()
    assert_close(fast, slow)
    with capsys.disabled():
        print(f"empirical Fisher, 512 samples: {middle - started:.3f} s against {ended - middle:.3f} s one by one")
