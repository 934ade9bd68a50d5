"""Distillation against sums written out."""

import numpy as np
import pytest
import torch

from cl.batch import Batch
from cl.learners.mlp import MLP
from cl.learners.recurrent import GRU
from cl.objectives import distillation_loss
from cl.seeding import seeded
from cl.testing import TinyStream
from cl.testing.tiny import TinySequences
from strategies.lwf import LwF


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_distillation_against_numpy():
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(7, 5, generator=g), torch.randn(7, 5, generator=g)
    s, t = student.numpy().astype(np.float64), teacher.numpy().astype(np.float64)
    expected = -(softmax(t / 2) * np.log(softmax(s / 2))).sum(1)
    np.testing.assert_allclose(distillation_loss(student, teacher, 2.0), expected, rtol=1e-5)
    old = torch.tensor([True, True, True, False, False])
    new = torch.tensor([True, True, True, True, False])
    expected = -(softmax(t[:, :3] / 2) * np.log(softmax(s[:, :4] / 2)[:, :3])).sum(1)
    np.testing.assert_allclose(distillation_loss(student, teacher, 2.0, new, old), expected, rtol=1e-5)
    steps = distillation_loss(student[None], teacher[None], 2.0)
    np.testing.assert_allclose(steps, distillation_loss(student, teacher, 2.0).mean()[None], rtol=1e-6)
    each = distillation_loss(student, teacher, 2.0)
    real = torch.arange(len(each))[None] < torch.tensor([[2], [len(each)], [0]])
    padded = distillation_loss(student.expand(3, -1, -1), teacher.expand(3, -1, -1), 2.0, real=real)
    np.testing.assert_allclose(padded, torch.stack([each[:2].mean(), each.mean(), torch.tensor(0.0)]), rtol=1e-6)


def second_task(scenario, k=2, **fields):
    stream = TinyStream(scenario)
    torch.manual_seed(1)
    strategy = LwF(MLP((1, 4, 4), stream.info.n_classes, hidden=(8,)), stream.info, **fields)
    for i in range(k + 1):
        strategy.grow(i)
        strategy.enter(i)
        strategy.begin_task(stream[i])
        with torch.no_grad():
            for p in strategy.learner.parameters():
                p.add_(0.3 * torch.randn_like(p))
    batch = stream[k].train.batch(torch.arange(20), torch.zeros((), dtype=torch.long))
    return strategy, batch


def numpy_logits(strategy, batch):
    with torch.no_grad():
        return strategy.teacher(batch.x).double().numpy(), strategy.learner(batch.x).double().numpy()


def cross_entropy(student, columns, y):
    p = softmax(student[:, columns])
    return -np.log(p[np.arange(len(y)), [columns.index(int(c)) for c in y]]).mean()


@pytest.mark.parametrize("heads", ["sum", "mean"])
@pytest.mark.parametrize("squared", [True, False])
def test_separate_heads_are_distilled_one_by_one(heads, squared):
    strategy, batch = second_task("task", heads=heads, squared_temperature=squared, strength=0.7)
    t, s = numpy_logits(strategy, batch)
    each = [-(softmax(t[:, c] / 2) * np.log(softmax(s[:, c] / 2))).sum(1).mean() for c in ([0, 1], [2, 3])]
    distillation = (sum(each) if heads == "sum" else np.mean(each)) * (4 if squared else 1)
    expected = cross_entropy(s, [4, 5], batch.y) + 0.7 * distillation
    assert strategy.loss(batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("compete", [True, False])
def test_growing_heads_distil_the_classes_met_before(compete):
    strategy, batch = second_task("class", compete=compete, weighting="tasks")
    t, s = numpy_logits(strategy, batch)
    columns = list(range(6 if compete else 4))
    q, p = softmax(t[:, :4] / 2), softmax(s[:, columns] / 2)[:, :4]
    expected = cross_entropy(s, list(range(6)), batch.y) / 3 + 2 / 3 * 4 * -(q * np.log(p)).sum(1).mean()
    assert strategy.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_teacher_is_the_network_at_the_end_of_the_task_before_and_learns_nothing():
    strategy, batch = second_task("domain", k=1)
    before = {n: t.clone() for n, t in strategy.teacher.state_dict().items()}
    torch.autograd.backward(strategy.loss(Batch(*batch)))
    assert all(p.grad is None for p in strategy.teacher.parameters())
    strategy.train()
    assert strategy.training
    assert not strategy.teacher.training
    assert all(torch.equal(t, before[n]) for n, t in strategy.teacher.state_dict().items())
    strategy.grow(2)
    strategy.begin_task(TinyStream("domain")[2])
    learner = strategy.learner.state_dict()
    assert all(torch.equal(t, learner[n]) for n, t in strategy.teacher.state_dict().items())
    assert any(not torch.equal(t, before[n]) for n, t in strategy.teacher.state_dict().items())
    assert strategy.stored_bytes() == {"teacher": sum(p.numel() for p in strategy.learner.parameters()) * 4}


@pytest.mark.parametrize(("scenario", "active"), [("task", 2), ("domain", 2), ("class", 6)])
def test_the_mean_over_outputs_divides_by_those_that_take_part(scenario, active):
    with_sum, batch = second_task(scenario, heads="mean", strength=1.0)
    with_mean, _ = second_task(scenario, heads="mean", strength=1.0, outputs="mean")
    neutral, _ = second_task(scenario, strength=0.0)
    new = neutral.loss(batch).item()
    assert with_mean.loss(batch).item() - new == pytest.approx((with_sum.loss(batch).item() - new) / active, rel=1e-4)


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_outputs_at_padded_steps_are_not_distilled(scenario):
    """Three steps of padding behind the longest sequence change no loss."""
    losses = []
    for padding in (0, 3):
        stream = TinySequences("steps", scenario, padding=padding)
        info = stream.info
        with seeded(0, "learner"):
            facts = {"vocabulary": info.vocabulary, "target": info.target, "padded": info.padded}
            strategy = LwF(GRU(info.input_shape, info.n_classes, hidden=5, embedding=4, **facts), info)
        for k in range(2):
            strategy.grow(k)
            strategy.enter(k)
            strategy.begin_task(stream[k])
        with torch.no_grad():
            for p in strategy.learner.parameters():
                p.mul_(1.5)
        batch = stream[1].train.batch(torch.arange(10), torch.zeros((), dtype=torch.long))
        losses.append(strategy.distillation(batch.x, strategy.logits(batch.x, batch.task)).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
