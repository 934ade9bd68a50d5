"""MER and La-MAML against their algorithms written out in plain Python."""

import pytest
import torch
import torch.nn.functional as F

from cl.learners import dropout
from cl.learners.mlp import MLP
from cl.seeding import step_keys
from cl.testing.tiny import TinyStream, engine, state
from strategies.lamaml import LaMAML
from strategies.mer import MER

KEY = step_keys(0, 0, 0, 1)[0]


def ready(make, stream, **fields):
    made = engine(make, stream, **fields)
    made.strategy.enter(0)
    made.update.refresh(made.strategy, reset=False)
    made.update.optimizer = torch.optim.SGD(made.update.parameters.values(), lr=0.1)
    return made


def bare(strategy):
    """The learner's weights as plain leaves, and its loss on samples."""
    weights = {n: p.detach().clone() for n, p in strategy.learner.named_parameters()}

    def loss(w, x, y):
        h = x.flatten(1)
        for i, layer in enumerate(("blocks.0.1", "blocks.1.0")):
            h = F.linear(h, w[f"{layer}.weight"], w[f"{layer}.bias"]).relu() if i < 2 else h
        return F.cross_entropy(F.linear(h, w["head.weight"], w["head.bias"]), y)

    return weights, loss


def gradient(loss, weights, x, y):
    leaves = {n: w.detach().requires_grad_() for n, w in weights.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves, x, y), list(leaves.values())), strict=True))


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 1.0), (0.3, 1.0), (0.3, 0.5)])
def test_mer_with_an_empty_memory_is_reptile_on_single_samples(beta, gamma):
    stream = TinyStream("domain")
    made = ready(MER, stream, memory_size=10, batches=2, batch_size=1, beta=beta, gamma=gamma)
    weights, loss = bare(made.strategy)
    batch = stream[0].train.batch(torch.tensor([0, 50, 7]), KEY)
    made.strategy.step(batch, made.update)
    for n in range(3):
        x, y = batch.x[n : n + 1], batch.y[n : n + 1]
        across = weights
        for _ in range(2):
            g = gradient(loss, weights, x, y)
            weights = {k: w + beta * ((w - 0.1 * g[k]) - w) for k, w in weights.items()}
        weights = {k: across[k] + gamma * (w - across[k]) for k, w in weights.items()}
    for name, p in made.strategy.learner.named_parameters():
        torch.testing.assert_close(p.detach(), weights[name], rtol=1e-4, atol=1e-6)
    assert int(made.strategy.memory.filled.sum()) == 3


@pytest.mark.parametrize("place", ["first", "last"])
def test_mer_replays_what_it_stored(place):
    stream = TinyStream("domain")
    made = ready(MER, stream, memory_size=1, batches=1, batch_size=2, beta=1.0, place=place)
    weights, loss = bare(made.strategy)
    batch = stream[0].train.batch(torch.tensor([0, 50]), KEY)
    made.strategy.step(batch, made.update)
    order = [0, 1, 0] if place == "first" else [0, 0, 1]  # the first alone; then the second and the first from memory
    for n in order:
        g = gradient(loss, weights, batch.x[n : n + 1], batch.y[n : n + 1])
        weights = {k: w - 0.1 * g[k] for k, w in weights.items()}
    for name, p in made.strategy.learner.named_parameters():
        torch.testing.assert_close(p.detach(), weights[name], rtol=1e-4, atol=1e-6)


def test_mer_recalls_other_samples_in_every_sequence():
    stream = TinyStream("domain")
    made = ready(MER, stream, memory_size=60, batches=3, batch_size=6, group=1)
    with torch.no_grad():
        first = stream[0].train.batch(torch.arange(0, 80, 2), KEY)
        made.strategy.memory.add({"x": first.x, "y": first.y, "task": first.task}, KEY)
    sample, drawn = made.strategy.memory.sample, []
    made.strategy.memory.sample = lambda *given, **named: drawn.append(sample(*given, **named)) or drawn[-1]
    made.strategy.step(stream[0].train.batch(torch.tensor([1]), KEY), made.update)
    recalled = [fields["x"] for fields, _ in drawn]
    assert len(recalled) == 3
    assert not any(torch.equal(recalled[i], recalled[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_mer_places_the_present_sample_at_random():
    """Over many keys each of the five places of a sequence of five is taken equally often."""
    mer = ready(MER, TinyStream("domain"), place="random").strategy
    counts = torch.bincount(torch.tensor([mer.position(4, key, 0) for key in step_keys(0, 0, 0, 1000)]), minlength=5)
    assert len(counts) == 5
    assert counts.min() > 150
    assert counts.max() < 250


@pytest.mark.parametrize("look", ["last", "all"])
@pytest.mark.parametrize("learn", ["alpha", "sync", "none"])
def test_lamaml_is_algorithm_1(learn, look):
    stream = TinyStream("domain")
    options = {"glances": 1, "look": look, "alpha": 0.2, "alpha_rate": 0.5, "learn": learn, "rate": 0.05, "clip": None}
    made = ready(LaMAML, stream, **options)
    start, loss = bare(made.strategy)
    batch = stream[0].train.batch(torch.tensor([0, 50, 7]), KEY)
    made.strategy.step(batch, made.update)
    ahead, total = start, {n: torch.zeros_like(w) for n, w in start.items()}
    meta, slope = dict(total), dict(total)
    steps = [2] if look == "last" else [0, 1, 2]
    for n in range(3):
        g = gradient(loss, ahead, batch.x[n : n + 1], batch.y[n : n + 1])
        ahead = {k: w - 0.2 * g[k] for k, w in ahead.items()}
        total = {k: total[k] + g[k] for k in total}
        if n in steps:  # first order: d theta_n / d alpha = -total
            seen = gradient(loss, ahead, batch.x, batch.y)
            meta = {k: meta[k] + seen[k] / len(steps) for k in meta}
            slope = {k: slope[k] + seen[k] * total[k] / len(steps) for k in slope}
    for name, p in made.strategy.learner.named_parameters():
        alpha = 0.2 + (0.5 * slope[name] if learn != "none" else 0.0)
        rate = alpha.clamp_min(0) if learn == "alpha" else 0.05
        torch.testing.assert_close(p.detach(), start[name] - rate * meta[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(made.strategy.alpha[name], torch.as_tensor(alpha).expand_as(p), rtol=1e-4, atol=1e-6)


def test_lamaml_does_not_step_at_rates_below_zero():
    """Neither ahead, so that the meta-loss is that of the present weights, nor for good."""
    stream = TinyStream("domain")
    made = ready(LaMAML, stream, glances=1, learn="alpha", alpha_rate=0.1)
    for _, alpha in made.strategy.alpha.items():
        alpha.fill_(-10.0)
    before, loss = bare(made.strategy)
    batch = stream[0].train.batch(torch.tensor([0, 50, 7]), KEY)
    found = made.strategy.step(batch, made.update)
    torch.testing.assert_close(found, loss(before, batch.x, batch.y))
    assert all(torch.equal(p, before[n]) for n, p in made.strategy.learner.named_parameters())


def test_lamaml_stores_a_batch_once_and_recalls_anew_at_every_glance():
    stream = TinyStream("domain")
    made = ready(LaMAML, stream, memory_size=60, glances=3, replay_batch=8)
    memory, drawn = made.strategy.memory, []
    with torch.no_grad():
        first = stream[0].train.batch(torch.arange(0, 80, 2), KEY)
        memory.add({"x": first.x, "y": first.y, "task": first.task}, KEY)
    sample = memory.sample
    memory.sample = lambda *given, **named: drawn.append(sample(*given, **named)) or drawn[-1]
    made.strategy.step(stream[0].train.batch(torch.arange(1, 11, 2), KEY), made.update)
    assert int(memory.seen) == int(memory.filled.sum()) == 45
    recalled = [fields["x"] for fields, _ in drawn]
    assert len(recalled) == 3
    assert not any(torch.equal(recalled[i], recalled[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_lamaml_clips_the_meta_gradient_and_second_order_differs():
    stream = TinyStream("domain")
    batch = stream[0].train.batch(torch.arange(8), KEY)
    moved = {}
    for name, options in {"first": {}, "second": {"second_order": True}, "clipped": {"clip": 0.01}}.items():
        made = ready(LaMAML, stream, **{"clip": None, "glances": 1, "learn": "none", "rate": 1.0, **options})
        before = state(made.strategy.learner)
        made.strategy.step(batch, made.update)
        after = state(made.strategy.learner)
        moved[name] = torch.cat([(after[n] - before[n]).flatten() for n in after])
    assert not torch.allclose(moved["first"], moved["second"])
    torch.testing.assert_close(moved["clipped"].norm(), torch.tensor(0.01), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(moved["clipped"] / 0.01, moved["first"] / moved["first"].norm(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "fields", "passes"),
    # A batch of 16: 2 sequences of 5 samples each; one look ahead, and the loss on all after it.
    [(MER, {"batches": 2, "batch_size": 5}, 160), (LaMAML, {"glances": 1, "look": "last"}, 17)],
)
def test_every_inner_step_has_its_own_dropout(monkeypatch, make, fields, passes):
    masks = []
    draw = dropout.uniform

    def drawn(*arguments):
        masks.append(draw(*arguments))
        return masks[-1]

    def learner(info):
        return MLP(info.input_shape, info.n_classes, hidden=(16,), dropout=0.5)

    made = engine(make, TinyStream("domain", tasks=2), learner, epochs=1, memory_size=60, **fields)
    made.evaluate_row(0)
    made.begin(0)
    batches = made.batches()
    made.strategy.step(next(batches), made.update)  # fills the memory
    monkeypatch.setattr(dropout, "uniform", drawn)
    made.strategy.step(next(batches), made.update)
    assert len(masks) == passes
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == passes
