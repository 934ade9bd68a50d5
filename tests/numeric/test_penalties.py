"""Quadratic penalties against sums written out, and the protocols of EWC against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

from cl.importance import Quadratic, fisher, output_sensitivity
from cl.learners.mlp import MLP
from cl.parameters import PerParameter
from cl.testing import TinyStream, train
from strategies.ewc import EWC
from strategies.l2 import L2
from strategies.mas import MAS
from strategies.online_ewc import OnlineEWC
from strategies.rwalk import RWalk
from strategies.si import SI


def module(seed):
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def rand(like, seed):
    g = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=g) * (torch.rand(p.shape, generator=g) > 0.3) for n, p in like}


def slopes(quadratic, at, strength=1.0):
    """The gradient of strength x penalty, by what is taken off a gradient of zero."""
    found = PerParameter(at)
    quadratic.penalty(at, found)
    for name, p in at.named_parameters():
        quadratic.take_off(found[name], name, torch.zeros_like(p), strength)
    return {n: -g for n, g in found.items()}


def test_penalties_of_several_tasks_collapse_into_one():
    quadratic = Quadratic(module(0))
    terms = []
    for task in range(4):
        at = module(task + 10)
        importance = rand(at.named_parameters(), task)
        quadratic.add(at, importance)
        terms.append((importance, {n: p.detach().clone() for n, p in at.named_parameters()}))
    now = module(99)
    expected = sum((f[n] * (p - a[n]).square()).sum() for f, a in terms for n, p in now.named_parameters())
    torch.testing.assert_close(quadratic.penalty(now), expected)
    grads = torch.autograd.grad(expected, list(now.parameters()))
    for (name, found), g in zip(slopes(quadratic, now).items(), grads, strict=True):
        torch.testing.assert_close(found, g, msg=name)


def test_what_is_taken_off_a_gradient():
    """By strengths that are numbers and tensors; nothing off what is not held."""
    at, g = module(99), torch.Generator().manual_seed(0)
    quadratic = Quadratic(module(0))
    quadratic.add(module(10), rand(at.named_parameters(), 0))
    one = slopes(quadratic, at)
    for strength in (3.0, torch.tensor(3.0)):
        torch.testing.assert_close(slopes(quadratic, at, strength), {n: 3 * s for n, s in one.items()})
    held = Quadratic(MLP((1, 4, 4), 6, hidden=(8,)), heads=False)
    gradient, noted = torch.rand(6, 8, generator=g), torch.rand(6, 8, generator=g)
    held.take_off(noted, "head.weight", gradient, 2.0)
    assert torch.equal(noted, gradient)


def test_replace_decays_and_moves_the_anchor():
    first, second, now = module(0), module(1), module(2)
    quadratic = Quadratic(first)
    f1, f2 = rand(first.named_parameters(), 0), rand(first.named_parameters(), 1)
    quadratic.replace(first, f1)
    quadratic.replace(second, f2, keep=0.5)
    expected = sum(
        ((0.5 * f1[n] + f2[n]) * (p - q).square()).sum()
        for (n, p), (_, q) in zip(now.named_parameters(), second.named_parameters(), strict=True)
    )
    torch.testing.assert_close(quadratic.penalty(now), expected)


def test_derivatives_of_a_penalty_of_first_and_second_order():
    """Also of a stack of replicas, as populations take them."""
    at, earlier = module(1).double(), module(2).double()
    quadratic = Quadratic(module(0).double())
    quadratic.add(earlier, {n: f.double() for n, f in rand(earlier.named_parameters(), 3).items()})
    names = [n for n, _ in at.named_parameters()]

    def value(*parameters):
        pairs = {f"module.{n}": p for n, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Penalised(at, quadratic), pairs, ())

    given = tuple(at.parameters())
    assert torch.autograd.gradcheck(value, given)
    assert torch.autograd.gradgradcheck(value, given)
    stacked = tuple(torch.stack([p.detach(), p.detach() * 2]) for p in given)
    found = torch.func.vmap(torch.func.grad(value, argnums=(0, 1)))(*stacked)
    torch.testing.assert_close([f[0] for f in found], list(slopes(quadratic, at).values()))
    with torch.no_grad():
        for p in at.parameters():
            p.mul_(2)
    torch.testing.assert_close([f[1] for f in found], list(slopes(quadratic, at).values()))


class Penalised(nn.Module):
    def __init__(self, module, quadratic):
        super().__init__()
        self.module, self.quadratic = module, quadratic

    def forward(self):
        return self.quadratic.penalty(self.module)


def test_ewc_finds_the_minimum_of_two_quadratics():
    """With loss h (w - b)^2 / 2 and penalty s F (w - a)^2 the minimum is (h b + 2 s F a) / (h + 2 s F)."""
    a, b, h, strength, f = 1.0, -2.0, 0.7, 3.0, 0.4
    weight = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(a)
    quadratic = Quadratic(weight)
    quadratic.add(weight, {"weight": torch.full((1, 1), f)})
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss = h / 2 * (weight.weight - b).square().sum() + strength * quadratic.penalty(weight)
        loss.backward()
        optimizer.step()
    assert weight.weight.item() == pytest.approx((h * b + 2 * strength * f * a) / (h + 2 * strength * f), abs=1e-5)


def make(**fields):
    stream = TinyStream("task")
    torch.manual_seed(0)
    return EWC(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, **fields).eval(), stream


def test_half_writes_the_penalty_as_in_the_paper():
    whole, half = make(strength=10.0)[0], make(strength=10.0, half=True)[0]
    for strategy in (whole, half):
        strategy.quadratic.add(strategy.learner, {n: p.square() for n, p in strategy.learner.named_parameters()})
        with torch.no_grad():
            for p in strategy.learner.parameters():
                p.add_(0.1)
    torch.testing.assert_close(half.penalty() * 2, whole.penalty())


def test_importance_is_normalised_and_clipped():
    strategy, stream = make(normalise=True)
    plain = fisher(strategy, stream[0].train)
    largest = max(float(v.max()) for v in plain.values())
    for name, value in strategy.importance(stream[0]).items():
        torch.testing.assert_close(value, plain[name] / largest)
    strategy, _ = make(clip=largest / 3)
    assert max(float(v.max()) for v in strategy.importance(stream[0]).values()) == pytest.approx(largest / 3)
    strategy, _ = make(normalise=True, clip=0.25)  # the clip is of what is normalised
    for name, value in strategy.importance(stream[0]).items():
        torch.testing.assert_close(value, (plain[name] / largest).clamp_max(0.25))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(EWC, {}), (OnlineEWC, {"decay": 0.3}), (MAS, {"decay": 0.3}), (SI, {"epsilon": 0.2})],
)
def test_the_penalty_of_two_tasks_written_out(kind, fields):
    """EWC keeps a term a task; the others one sum that fades, around the latest solution."""
    stream, g = TinyStream("task"), torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    strategy = kind(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, strength=3.0, **fields).eval()

    def move():
        before = {n: p.detach().clone() for n, p in strategy.learner.named_parameters()}
        with torch.no_grad():
            for p in strategy.learner.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=g))
        return {n: p.detach() - before[n] for n, p in strategy.learner.named_parameters()}

    terms = []
    for k in range(2):
        change = move()
        if kind is SI:
            for _, total in strategy.path.total.items():
                total.copy_(torch.rand(total.shape, generator=g))
            found = {n: t / (change[n].square() + 0.2) for n, t in strategy.path.total.items()}
        else:
            found = (output_sensitivity if kind is MAS else fisher)(strategy, stream[k].train)
        terms.append((found, {n: p.detach().clone() for n, p in strategy.learner.named_parameters()}))
        strategy.end_task(stream[k])
    move()
    if kind is not EWC:
        (first, _), (second, anchor) = terms
        terms = [({n: fields.get("decay", 1.0) * first[n] + f for n, f in second.items()}, anchor)]
    now = dict(strategy.learner.named_parameters())
    expected = 3 * sum((f * (now[n] - anchor[n]).square()).sum() for found, anchor in terms for n, f in found.items())
    torch.testing.assert_close(strategy.penalty(), expected)


@pytest.mark.parametrize("kind", [EWC, OnlineEWC, SI, MAS, RWalk, L2])
def test_heads_may_be_left_out(kind):
    """The head is then free and costs no memory; what holds the other parameters is the same."""
    found = {}
    for heads in (True, False):
        strategy = train(kind, TinyStream("task", tasks=1), epochs=2, heads=heads).strategy
        strategy.enter(1)
        with torch.no_grad():
            for i, p in enumerate(strategy.learner.parameters()):
                p.add_(0.1 + 0.01 * i)
        names, parameters = zip(*strategy.learner.named_parameters(), strict=True)
        grads = torch.autograd.grad(strategy.penalty(), parameters, allow_unused=True)
        found[heads] = dict(zip(names, grads, strict=True))
        stored = [n for n, _ in (strategy.anchor if kind is L2 else strategy.quadratic.anchor).items()]
        assert stored == [n for n in names if heads or "head" not in n]
    for name, g in found[False].items():
        assert ("head" in name) == (g is None)
        assert found[True][name].any()
        if g is not None and kind is not RWalk:  # which scales what it holds
            torch.testing.assert_close(g, found[True][name])


def test_l2_holds_what_the_last_task_left():
    """Not what was initialised: the first task is free, and every task moves the anchor."""
    stream, g = TinyStream("task"), torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    strategy = L2(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, strength=3.0)
    for k in range(3):
        strategy.enter(k)
        with torch.no_grad():
            before = {n: p.clone() for n, p in strategy.learner.named_parameters()}
            for p in strategy.learner.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=g))
            change = sum((p - before[n]).square().sum() for n, p in strategy.learner.named_parameters())
        torch.testing.assert_close(strategy.penalty().detach(), 3 * change * (k > 0))
        strategy.end_task(stream[k])


def test_a_strong_penalty_holds_important_weights_and_leaves_the_others():
    stream = TinyStream("task")
    runs = {s: train(EWC, stream, epochs=6, strength=s) for s in (0.0, 1000.0)}
    moved = {}
    for strength, engine in runs.items():
        accuracy = engine.record.accuracy[1:]
        moved[strength] = float((np.diagonal(accuracy) - accuracy[-1])[:-1].mean())
    assert moved[1000.0] < moved[0.0]
