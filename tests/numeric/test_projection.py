"""Projections against their constraints and an independent solver, and what they keep of earlier tasks."""

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import nn

from cl.batch import Batch
from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.learners.cnn import CNN
from cl.learners.mlp import MLP
from cl.projection import complement, cone, half_space, leading_directions, orthonormal, reference_gradients
from cl.strategy import Strategy
from cl.testing import TinyStream, train
from cl.testing.tiny import engine
from strategies.agem import AGEM
from strategies.gem import GEM
from strategies.gpm import GPM
from strategies.ogd import OGD


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_half_space_is_the_nearest_point_that_does_not_oppose(seed):
    g, r = {"a": draw(5, seed=seed), "b": draw(2, 3, seed=seed + 50)}, {"a": draw(5, seed=9), "b": draw(2, 3, seed=8)}
    flat = lambda d: torch.cat([d["a"], d["b"].flatten()]).double().numpy()  # noqa: E731
    found, x, y = flat(half_space(g, r)), flat(g), flat(r)
    if x @ y >= 0:
        np.testing.assert_array_equal(found, x)
    else:
        np.testing.assert_allclose(found, x - (x @ y) / (y @ y) * y, rtol=1e-5, atol=1e-6)
        assert abs(found @ y) < 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_cone_is_the_nearest_point_that_opposes_no_reference(seed):
    """An independent solver: non-negative least squares solves the same dual."""
    g, past = draw(30, seed=seed), draw(5, 30, seed=100 + seed) - 0.3 * draw(30, seed=seed)
    found = cone(g, past).double().numpy()
    assert (past.double().numpy() @ found).min() > -1e-4
    weights, _ = scipy.optimize.nnls(past.double().numpy().T, -g.double().numpy())
    np.testing.assert_allclose(found, g.double().numpy() + weights @ past.double().numpy(), atol=1e-4)
    assert np.linalg.norm(found) <= np.linalg.norm(g) + 1e-6


def test_cone_with_a_margin_weighs_every_reference_at_least_so_much():
    g, past = draw(30), draw(4, 30, seed=1)
    change = (cone(g, past, margin=0.5) - g).double().numpy()
    weights = np.linalg.lstsq(past.double().numpy().T, change, rcond=None)[0]
    assert weights.min() > 0.5 - 1e-5


def test_cone_with_dependent_references_and_a_small_scale():
    g, one = 1e-6 * draw(20), draw(20, seed=3)
    past = 1e-6 * torch.stack([one, one, -2 * g / 1e-6])
    found = cone(g, past)
    assert float((past @ found).min() / (past.norm(dim=1).max() * g.norm())) > -1e-4


def test_orthonormal_rows_span_the_vectors_and_skip_dependent_ones():
    first = orthonormal(draw(3, 10), torch.zeros(0, 10))
    vectors = torch.cat([draw(2, 10, seed=4), (first[:1] + 2 * first[1:2])])
    second = orthonormal(vectors, first)
    rows = torch.cat([first, second])
    expected = torch.eye(6)
    expected[5, 5] = 0
    torch.testing.assert_close(rows @ rows.T, expected, atol=1e-5, rtol=0)
    for v in vectors:
        assert complement(v, rows).norm() < 1e-5 * v.norm()


def test_leading_directions_hold_the_energy_with_the_fewest_directions():
    x = draw(40, 6).double() * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1, 0.01])
    energy = np.linalg.svd(x.numpy(), compute_uv=False) ** 2
    for threshold in (0.0, 0.5, 0.9, 0.99, 1.0):
        p = leading_directions(x.T @ x, torch.zeros(6, 6, dtype=torch.float64), threshold)
        rank = next(r for r in range(7) if energy[:r].sum() >= threshold * energy.sum() * (1 - 1e-12))
        assert p.trace().item() == pytest.approx(rank, abs=1e-6)
        torch.testing.assert_close(p @ p, p)
        assert (x @ p).square().sum() >= threshold * x.square().sum() * (1 - 1e-9)
    known = leading_directions(x.T @ x, torch.zeros(6, 6, dtype=torch.float64), 0.9)
    torch.testing.assert_close(leading_directions(x.T @ x, known, 0.9), known)


class Normalised(Learner):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 6)

    def forward(self, x, gates=None):
        return self.head(self.net(x))


def test_reference_gradients_equal_autograd_and_leave_running_statistics():
    stream = TinyStream("task")
    strategy = Strategy(Normalised(), stream.info).train()
    batch = stream[0].train.batch(torch.arange(12), torch.zeros((), dtype=torch.long))
    valid = torch.arange(12) < 9
    mean = strategy.learner.net[2].running_mean.clone()
    grads = {n: torch.zeros_like(p) for n, p in strategy.named_parameters()}
    found = reference_gradients(strategy, grads, batch, valid)
    assert torch.equal(mean, strategy.learner.net[2].running_mean)
    loss = strategy.per_sample(strategy.logits(batch.x, batch.task), batch)[:9].mean()
    expected = torch.autograd.grad(loss, list(strategy.parameters()))
    for (name, _), g in zip(strategy.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[name], g, msg=name)
    none = reference_gradients(strategy, grads, batch, torch.zeros(12, dtype=torch.bool))
    assert not any(g.any() for g in none.values())


class Double(MLP):
    """A network in float64, where rounding does not hide what is of second order."""

    def activations(self, x, gates=None):
        return super().activations(x.double(), gates)


def learned(make, scenario="task", net=None, **fields):
    """A strategy that has learned task 0 by plain steps and stands at the start of task 1."""
    stream = TinyStream(scenario)
    torch.manual_seed(0)
    strategy = make(net or MLP((1, 4, 4), stream.info.n_classes, hidden=(24, 20)), stream.info, **fields)
    if isinstance(net, Double):
        strategy.double()
    descend(strategy, stream, 0, 40, 0.2)
    strategy.eval()
    strategy.end_task(stream[0])
    strategy.train()
    strategy.grow(1)
    strategy.enter(1)
    return strategy, stream


def descend(strategy, stream, k, steps, lr, make=torch.optim.SGD):
    """Take steps on the whole of task k, as the engine takes them."""
    if k == 0:
        strategy.grow(0)
        strategy.enter(0)
    batch = stream[k].train.batch(torch.arange(len(stream[k].train)), torch.zeros((), dtype=torch.long))
    parameters = {n: p for n, p in strategy.named_parameters() if p.requires_grad}
    optimizer = make(parameters.values(), lr=lr)
    for _ in range(steps):
        loss, aux = strategy.training_loss(batch)
        grads = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        with torch.no_grad():
            for name, g in strategy.gradients(grads, batch, aux).items():
                parameters[name].grad = g
            optimizer.step()
            strategy.after_step(batch, aux)
            strategy.remember(batch, aux)
    return loss.item()


def logits(strategy, stream, k):
    batch = next(stream[k].train.in_order(1000))
    with torch.no_grad():
        return strategy.logits(batch.x, batch.task), batch.y


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_ogd_leaves_stored_outputs_to_first_order(scenario):
    """A step ten times shorter moves the label's logits a hundred times less; in plain descent ten times less."""
    ratio = {}
    for samples in (0, 80):
        moved = []
        for lr in (1e-3, 1e-4):
            torch.manual_seed(1)
            net = Double((1, 4, 4), 2 if scenario == "domain" else 6, hidden=(24, 20), activation="tanh")
            strategy, stream = learned(OGD, scenario, net, samples=samples)
            before, y = logits(strategy, stream, 0)
            descend(strategy, stream, 1, 1, lr)
            after, _ = logits(strategy, stream, 0)
            moved.append((after - before).gather(1, y[:, None]).norm().item())
        ratio[samples] = moved[0] / moved[1]
    assert ratio[0] == pytest.approx(10, rel=0.1)
    assert ratio[80] == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("project", ["gradient", "step"])
def test_adam_leaves_the_complement_unless_steps_are_projected(project):
    strategy, stream = learned(OGD, samples=40, project=project)
    before = torch.cat([p.detach().flatten() for p in strategy.learner.parameters()])
    descend(strategy, stream, 1, 20, 0.01, torch.optim.Adam)
    change = torch.cat([p.detach().flatten() for p in strategy.learner.parameters()]) - before
    inside = (strategy.basis @ change).norm() / change.norm()
    assert inside < 1e-4 if project == "step" else inside > 1e-2


def test_ogd_projects_orthogonally_to_every_stored_gradient():
    for outputs, rows in (("label", 10), ("mean", 10), ("all", 20)):
        strategy, stream = learned(OGD, samples=10, outputs=outputs)
        assert len(strategy.basis) == rows
        grads = {n: torch.randn_like(p) for n, p in strategy.named_parameters()}
        batch = stream[1].train.batch(torch.arange(4), torch.zeros((), dtype=torch.long))
        found = strategy.gradients(grads, batch, {})
        flat = torch.cat([found[n].flatten() for n in strategy.names])
        strategy.eval()
        stored = strategy.output_gradients(stream[0].train.batch(torch.arange(80), batch.key))
        inside = torch.cat([grads[n].flatten() for n in strategy.names])
        assert (strategy.basis @ flat).abs().max() < 1e-5 * inside.norm()
        assert stored.shape[0] == (160 if outputs == "all" else 80)


def test_ogd_stores_what_a_second_task_adds_to_the_first():
    strategy, stream = learned(OGD, "domain", samples=6)
    descend(strategy, stream, 1, 5, 0.1)
    strategy.eval()
    strategy.end_task(stream[1])
    basis = strategy.basis.double()
    assert len(basis) == 12
    products = basis @ basis.T
    torch.testing.assert_close(products, torch.diag(products.diagonal()), atol=1e-5, rtol=0)
    assert set(products.diagonal().round(decimals=4).tolist()) <= {0.0, 1.0}
    assert int(products.diagonal().sum().round()) > 6


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("kind", ["mlp", "no biases", "cnn"])
def test_gpm_leaves_the_answers_of_the_first_task(kind, optimizer):
    """With the whole energy held, outputs on the samples taken do not change at all, however long the next task."""
    nets = {"mlp": None, "cnn": CNN((1, 4, 4), 6, channels=(6, 8), hidden=(12,), norm="group")}
    nets["no biases"] = MLP((1, 4, 4), 6, hidden=(16, 16), bias=False, head_bias=False)
    strategy, stream = learned(GPM, net=nets[kind], threshold=1.0, samples=80)
    before, _ = logits(strategy, stream, 0)
    lr = 0.05 if optimizer is torch.optim.SGD else 0.003
    first = descend(strategy, stream, 1, 1, lr, optimizer)
    last = descend(strategy, stream, 1, 60, lr, optimizer)
    after, _ = logits(strategy, stream, 0)
    torch.testing.assert_close(after[:, :2], before[:, :2], atol=2e-4, rtol=1e-4)
    assert last < first, "the head of the new task is free to learn"


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_gpm_leaves_the_heads_of_other_tasks(decay):
    """Adam's moments would move them long after their last gradient."""
    made = engine(GPM, TinyStream("task"), threshold=1.0)
    made.update.make_optimizer = lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=decay)
    made.run_task(0)
    before = made.strategy.learner.head.weight.detach().clone()
    made.run_task(1)
    moved = (made.strategy.learner.head.weight - before).abs().amax(1) > 0
    assert moved.tolist() == [False, False, True, True, False, False]


def test_gpm_with_less_energy_is_between_that_and_fine_tuning():
    moved = []
    for threshold in (0.0, 0.9, 0.999):
        strategy, stream = learned(GPM, threshold=threshold)
        before, _ = logits(strategy, stream, 0)
        descend(strategy, stream, 1, 60, 0.1)
        moved.append(float((logits(strategy, stream, 0)[0] - before)[:, :2].norm()))
    assert moved[0] > 1.5 * moved[1] > 2.25 * moved[2]


def test_gpm_holds_a_share_of_the_energy_in_each_layer_by_itself():
    made = train(GPM, TinyStream("domain"), epochs=1, threshold=[1.0, 0.0, 0.0], increase=0.0)
    sizes = [float(made.strategy.projection(name).trace()) for name in made.strategy.projected]
    assert sizes[0] == pytest.approx(17)  # 16 inputs and the constant
    assert sizes[1:] == [0, 0]
    with pytest.raises(ConfigError, match=r"strategy\.threshold` one number, or 3 for 3 layers"):
        train(GPM, TinyStream("domain"), threshold=[0.9, 0.9])


@pytest.mark.parametrize("samples", [30, [7, 60, 80]])
def test_gpm_takes_as_many_samples_for_each_layer_as_asked(samples):
    made = engine(GPM, TinyStream("domain"), epochs=1, samples=samples)
    made.run_task(0)
    made.strategy.eval()
    with torch.no_grad():
        found = made.strategy.moments(made.stream[0])
    # the entry of the constant input counts the samples
    expected = [30] * 3 if samples == 30 else samples
    assert [round(float(m[-1, -1])) for m in found.values()] == expected
    with pytest.raises(ConfigError, match=r"strategy\.samples` one number, or 3 for 3 layers"):
        train(GPM, TinyStream("domain"), samples=[30, 30])


def test_gpm_refuses_layers_it_cannot_project():
    class Recurrent(Learner):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(4, 4), nn.Linear(4, 6)

    with pytest.raises(ConfigError, match="GRU"):
        GPM(Recurrent(), TinyStream("task").info)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_gem_and_agem_oppose_no_memory(scenario):
    """After projection the product with every (GEM) or the drawn (A-GEM) reference is not negative."""
    for make, fields in ((GEM, {"margin": 0.0}), (AGEM, {"reference_batch": 20})):
        strategy, stream = learned(make, scenario, memory_size=60, **fields)
        changed = 0
        for start in range(0, 80, 8):
            key = torch.tensor(start)
            batch = stream[1].train.batch(torch.arange(start, start + 8), key)
            loss = strategy.loss(batch)
            names = dict(strategy.named_parameters())
            grads = dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))
            found = strategy.gradients(grads, batch, {})
            memory = Batch(*(strategy.memory[field][:20] for field in ("x", "y", "task")), key)
            past = strategy.criterion(strategy.logits(memory.x, memory.task), memory)
            reference = torch.autograd.grad(past, list(names.values()))
            dot = sum(float((found[n] * r).sum()) for n, r in zip(names, reference, strict=True))
            scale = sum(float(r.square().sum()) for r in reference) ** 0.5
            assert dot >= -1e-4 * scale
            changed += any(not torch.equal(found[n], grads[n]) for n in grads)
        assert changed > 0 or scenario == "task", "no gradient opposed the memory: the test shows nothing"


def test_gem_projects_where_one_of_several_tasks_is_opposed():
    strategy, stream = learned(GEM, "domain", memory_size=60, margin=0.0)
    strategy.grow(2)
    torch.manual_seed(0)
    grads = {n: torch.randn_like(p) for n, p in strategy.named_parameters()}
    past = [{n: -g for n, g in grads.items()}, {n: g + torch.randn_like(g) for n, g in grads.items()}]
    strategy.reference = lambda grads, batch, task: past[task]
    batch = stream[1].train.batch(torch.arange(4), torch.zeros((), dtype=torch.long))
    found = strategy.gradients(grads, batch, {})
    for reference in past:
        products = [(found[n] * r).sum() for n, r in reference.items()]
        assert float(sum(products)) >= -1e-4 * float(sum(r.square().sum() for r in reference.values()))
    past[0] = past[1]
    assert strategy.gradients(grads, batch, {}) is grads


@pytest.mark.parametrize(("shares", "sizes"), [("fixed", [2, 2, 2]), ("met", [7, 3, 2])])
def test_gem_takes_its_references_from_the_shares_of_the_tasks(shares, sizes, monkeypatch):
    """Seven slots for three tasks."""
    stream, seen = TinyStream("domain"), []
    made = engine(GEM, stream, epochs=1, memory_size=7, shares=shares)
    for k, size in enumerate(sizes):
        made.run_task(k)
        with monkeypatch.context() as patched:
            patched.setattr("strategies.gem.reference_gradients", lambda *given: seen.append(given[2]))
            for task in range(k + 1):
                made.strategy.reference({}, stream[0].train.batch(torch.arange(2), torch.tensor(0)), task)
                images = stream[task].train
                held = images.inputs(torch.arange(len(images)))
                assert seen[-1].task.tolist() == [task] * size
                assert all(any(torch.equal(x, h) for h in held) for x in seen[-1].x)


def test_agem_takes_its_reference_from_earlier_tasks_alone():
    strategy, stream = learned(AGEM, memory_size=60, reference_batch=20)
    descend(strategy, stream, 1, 3, 0.1)
    fields, valid = strategy.memory.sample(60, torch.tensor(5), strategy.chances())
    assert set(fields["task"][valid].tolist()) == {0}
    assert int(valid.sum()) == 20
    online = AGEM(MLP((1, 4, 4), 6, hidden=(8,)), TinyStream("online").info, memory_size=10)
    descend(online, TinyStream("online"), 0, 2, 0.1)
    assert online.chances() is None
    assert int(online.memory.filled.sum()) == 10


def test_ridge_is_added_to_the_products():
    g, past = draw(9), draw(3, 9, seed=1)
    weights = np.linalg.solve((past @ past.T).numpy() + 5 * np.eye(3), -(past @ g).numpy())
    expected = g + torch.as_tensor(weights, dtype=g.dtype) @ past
    torch.testing.assert_close(cone(g, past, -1e6, ridge=5.0), expected, rtol=1e-4, atol=1e-5)


def normalised(info):
    return MLP(info.input_shape, info.n_classes, hidden=(16,), norm="batch")


def test_gpm_keeps_running_statistics_as_the_first_task_left_them():
    """All energy held: the first task is answered as before, by a network that normalises batches."""
    stream = TinyStream("task")
    run = engine(GPM, stream, make_learner=normalised, threshold=1.0, epochs=3)
    run.run_task(0)
    before = {n: b.clone() for n, b in run.strategy.learner.named_buffers()}
    run.run_task(1)
    after = dict(run.strategy.learner.named_buffers())
    assert any("running" in n for n in before)
    assert all(torch.equal(after[n], b) for n, b in before.items())


@pytest.mark.parametrize("outputs", ["label", "mean", "all"])
@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_ogd_says_how_large_it_grows(scenario, outputs):
    made = engine(OGD, TinyStream(scenario), samples=7, outputs=outputs, epochs=1)
    basis = made.strategy.basis
    expected = basis.numel() * basis.element_size() + made.strategy.growth()
    made.run()
    basis = made.strategy.basis
    assert basis.numel() * basis.element_size() == expected > 0
    assert made.strategy.growth() == 0
