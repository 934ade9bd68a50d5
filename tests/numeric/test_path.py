"""Path integrals against closed forms on quadratics, and scores against a loop in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from cl.batch import Batch
from cl.importance import PathIntegral
from cl.learners.mlp import MLP
from cl.testing import TinyStream, train
from strategies.rwalk import RWalk
from strategies.si import SI


class Quadratic(nn.Module):
    """Loss sum_i h_i (theta_i - b_i)^2 / 2."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
        self.h = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
        self.b = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)

    def loss(self):
        return (self.h * (self.theta - self.b).square()).sum() / 2


def follow(lr, steps):
    module = Quadratic()
    path, optimizer = PathIntegral(module, prefix=""), torch.optim.SGD(module.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(module.loss())
        with torch.no_grad():
            path.begin_step(module, {"theta": module.theta.grad}, {"theta": torch.zeros(3)})
        optimizer.step()
        with torch.no_grad():
            path.end_step(module)
    return module, path.total["theta"]


def test_gradient_descent_on_a_quadratic_is_a_geometric_series():
    """Step t moves d by -lr h d, d_t = (1 - lr h)^t d_0: the integral is lr h^2 d_0^2 sum_t (1 - lr h)^(2 t)."""
    lr, steps = 0.1, 30
    start = Quadratic()
    d, r = (start.theta - start.b).detach(), 1 - lr * start.h
    expected = lr * start.h**2 * d**2 * (1 - r ** (2 * steps)) / (1 - r**2)
    torch.testing.assert_close(follow(lr, steps)[1], expected)


def test_small_steps_give_the_fall_of_the_loss():
    start = Quadratic()
    end, total = follow(1e-4, 20000)
    each = start.h * ((start.theta - start.b).square() - (end.theta - start.b).square()) / 2
    torch.testing.assert_close(total, each.detach(), rtol=2e-4, atol=1e-9)
    assert total.sum().item() == pytest.approx((start.loss() - end.loss()).item(), rel=2e-4)


def prepared(make, **fields):
    stream = TinyStream("task")
    torch.manual_seed(0)
    strategy = make(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, **fields)
    importance = {n: torch.rand_like(p) for n, p in strategy.learner.named_parameters()}
    strategy.quadratic.replace(strategy.learner, importance)
    with torch.no_grad():
        for p in strategy.learner.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return strategy, stream[0].train.batch(torch.arange(16), torch.zeros((), dtype=torch.long))


def gradients(strategy, loss):
    found = torch.autograd.grad(loss, list(strategy.parameters()), allow_unused=True)
    return {n: g for (n, _), g in zip(strategy.named_parameters(), found, strict=True) if g is not None}


@pytest.mark.parametrize("make", [SI, RWalk])
def test_the_path_follows_the_gradient_without_the_penalty(make):
    strategy, batch = prepared(make, strength=5.0)
    whole, data = gradients(strategy, strategy.training_loss(batch)[0]), gradients(strategy, strategy.loss(batch))
    edited = strategy.gradients(whole, batch, {})
    assert all(edited[n] is whole[n] for n in whole)
    for name, g in strategy.path.gradient.items():
        torch.testing.assert_close(g, data[f"learner.{name}"], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(g, whole[f"learner.{name}"], atol=1e-3) or name.startswith("head")


def test_the_path_can_follow_the_whole_loss():
    strategy, batch = prepared(SI, strength=5.0, whole_loss=True)
    whole = gradients(strategy, strategy.training_loss(batch)[0])
    strategy.gradients(whole, batch, {})
    for name, g in strategy.path.gradient.items():
        torch.testing.assert_close(g, whole[f"learner.{name}"])


def test_importance_of_si_after_a_task():
    stream = TinyStream("task")
    strategy = SI(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, epsilon=0.2)
    start = {n: p.detach().clone() for n, p in strategy.learner.named_parameters()}
    with torch.no_grad():
        for name, p in strategy.learner.named_parameters():
            p.add_(0.5)
            strategy.path.total[name].copy_(torch.randn_like(p))
    omega = {n: w.clone() for n, w in strategy.path.total.items()}
    strategy.end_task(stream[0])
    for name, p in strategy.learner.named_parameters():
        expected = (omega[name] / ((p.detach() - start[name]).square() + 0.2)).clamp_min(0)
        torch.testing.assert_close(strategy.quadratic.importance[name], expected)
        torch.testing.assert_close(strategy.quadratic.anchor[name], p.detach())
        assert not strategy.path.total[name].any()


def test_scores_of_rwalk_against_a_loop():
    """One weight is pushed along a fixed walk with fixed gradients; the scores follow by hand."""
    interval, decay, epsilon = 4, 0.8, 0.01
    stream = TinyStream("task")
    strategy = RWalk(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, interval=interval, decay=decay, epsilon=epsilon)
    weight, rng = strategy.learner.head.bias, np.random.default_rng(7)
    batch = Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros((), dtype=torch.long))
    theta = start = float(weight[0].detach())
    curvature = gain = score = 0.0
    for step in range(1, 30):
        g, move = rng.normal(size=2)
        grads = {f"learner.{n}": torch.zeros_like(p) for n, p in strategy.learner.named_parameters()}
        grads["learner.head.bias"][0] = g
        strategy.gradients(grads, batch, {})
        with torch.no_grad():
            weight[0] += move
            strategy.after_step(batch, {})
        curvature = decay * curvature + (1 - decay) * g**2
        gain, theta = gain - g * move, theta + move
        if step % interval == 0:
            score += max(gain, 0) / (curvature * (theta - start) ** 2 / 2 + epsilon)
            gain, start = 0.0, theta
        assert strategy.scores["head.bias"][0].item() == pytest.approx(score, rel=1e-4, abs=1e-6)
    assert score > 0, "no stretch counted: the walk proves nothing"


@pytest.mark.parametrize("keep", [0.0, 0.25])
def test_rwalk_averages_scaled_importances_over_tasks(keep):
    stream = TinyStream("task", tasks=2)
    one = train(RWalk, TinyStream("task", tasks=2), epochs=2, strength=0.0, keep=0.0).strategy.quadratic.importance
    largest = max(float(v.max()) for _, v in one.items())
    assert 1 < largest <= 2  # F and s each reach 1
    both = train(RWalk, stream, epochs=2, strength=0.0, keep=keep).strategy.quadratic.importance
    rows = both["head.weight"].sum(1)
    assert bool((rows[:2] > 0).all()) == (keep > 0), "the first task's head counts only if it is kept"
    torch.testing.assert_close(rows[2:4], (1 - keep) * one["head.weight"].sum(1)[2:4])
