"""Path integrals against closed forms on quadratics, and scores against a loop in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from cl.batch import Batch
from cl.importance import PathIntegral, fisher
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
            path.begin_step(module, {"theta": module.theta.grad}, None, 1.0)
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


@pytest.mark.parametrize("make", [SI, RWalk])
def test_the_path_of_frozen_parameters_stays_zero(make):
    """Step after step: parameters without a gradient gather neither path nor squares."""
    strategy, batch = prepared(make, strength=5.0)
    whole = gradients(strategy, strategy.training_loss(batch)[0])
    trained = {n: g for n, g in whole.items() if n.startswith("learner.head")}
    assert 0 < len(trained) < len(whole)
    for _ in range(3):
        strategy.gradients(trained, batch, {})
        strategy.after_step(batch, {})
    for name, g in strategy.path.gradient.items():
        assert g.any() == (f"learner.{name}" in trained)


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


class Walk:
    """RWalk in numpy for one weight: pushed along a given walk with given gradients, it gathers F~ and s."""

    def __init__(self, theta, interval, alpha, epsilon, keep):
        self.theta = self.start = theta
        self.interval, self.alpha, self.epsilon, self.keep = interval, alpha, epsilon, keep
        self.fisher, self.average, self.tasks = 0.0, 0.0, 0
        self.begin()

    def begin(self):
        self.score, self.gain, self.squares, self.start = 0.0, 0.0, [], self.theta

    def step(self, g, move):
        self.gain, self.theta = self.gain - g * move, self.theta + move
        self.squares.append(g**2)
        if len(self.squares) == self.interval:
            divergence = self.fisher * (self.theta - self.start) ** 2 / 2  # with F~ from before the stretch
            self.score += max(self.gain, 0) / (divergence + self.epsilon)
            self.fisher = self.alpha * np.mean(self.squares) + (1 - self.alpha) * self.fisher
            self.gain, self.squares, self.start = 0.0, [], self.theta

    def end_task(self):
        self.average = self.score if self.tasks == 0 else (1 - self.keep) * self.score + self.keep * self.average
        self.tasks += 1
        self.begin()


@pytest.mark.parametrize(("alpha", "keep"), [(0.9, 0.5), (0.3, 0.2), (1.0, 0.0)])
def test_rwalk_against_a_loop(alpha, keep):
    """The weights of one bias are pushed along fixed walks with fixed gradients, through two tasks cut in a stretch."""
    options = {"interval": 4, "alpha": alpha, "epsilon": 0.01, "keep": keep}
    stream = TinyStream("task")
    strategy = RWalk(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, strength=0.0, **options)
    bias, rng = strategy.learner.head.bias, np.random.default_rng(7)
    batch = Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros((), dtype=torch.long))
    walks = [Walk(float(theta), **options) for theta in bias.detach()]
    for k, steps in enumerate((30, 22)):
        for _ in range(steps):
            g, move = rng.normal(size=(2, 6))
            grads = {f"learner.{n}": torch.zeros_like(p) for n, p in strategy.learner.named_parameters()}
            grads["learner.head.bias"].copy_(torch.from_numpy(g))
            strategy.gradients(grads, batch, {})
            with torch.no_grad():
                bias += torch.from_numpy(move).float()
                strategy.after_step(batch, {})
            for walk, one, other in zip(walks, g, move, strict=True):
                walk.step(one, other)
            np.testing.assert_allclose(strategy.scores["head.bias"], [w.score for w in walks], rtol=1e-4, atol=1e-6)
        strategy.end_task(stream[k])
        for walk in walks:
            walk.end_task()
        f, s = (np.array([getattr(w, name) for w in walks]) for name in ("fisher", "average"))
        # All other weights stay where they are: their F and s are 0, the smallest there is.
        expected = f / f.max() + s / s.max()
        np.testing.assert_allclose(strategy.quadratic.importance["head.bias"], expected, rtol=1e-4)
        assert not strategy.quadratic.importance["head.weight"].any()
    assert s.min() > 0, "a walk gathered nothing: it proves nothing"


def test_rwalk_may_take_the_fisher_information_of_the_latest_task():
    stream = TinyStream("task", tasks=2)
    strategy = train(RWalk, stream, epochs=2, strength=0.0, fisher="empirical").strategy
    information = fisher(strategy, stream[1].train, "empirical")
    largest = max(float(f.max()) for f in information.values())
    highest = max(float(s.max()) for _, s in strategy.average.items())
    for name, f in information.items():
        expected = f / largest + strategy.average[name] / highest
        torch.testing.assert_close(strategy.quadratic.importance[name], expected)
    heads = strategy.quadratic.importance["head.weight"].sum(1)
    assert heads[:2].min() > 0, "the scores of the first task are kept"
