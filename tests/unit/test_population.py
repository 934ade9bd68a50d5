"""A population is its replicas, each as the run alone: optimisers, clipping, schedules, lengths, failures, resuming."""

import copy
import io
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from cl.engine import Engine
from cl.evaluator import EvaluationOptions
from cl.learners.mlp import MLP
from cl.population import Population, batches, lanes
from cl.population.linear import in_memory_order
from cl.population.number import Number
from cl.population.optimisers import alike
from cl.seeding import seeded
from cl.strategy import Strategy
from cl.streams import TaskStream
from cl.streams.constructions import Permuted, Split
from cl.streams.sources import Digits
from cl.testing import TinyStream
from cl.testing.tiny import state
from cl.training import TrainingOptions
from strategies.joint import Joint
from tests.unit.test_check_strategy import Decayed

SEEDS = range(3)


def make(
    seed,
    optimizer=None,
    scheduler=None,
    samples=40,
    scenario="class",
    strategy=Strategy,
    learner=None,
    every=None,
    stream=None,
    **options,
):
    stream = stream or TinyStream(scenario, seed, samples=samples)
    with seeded(seed, "learner"):
        net = MLP(stream.info.input_shape, stream.info.n_classes, **{"hidden": (16, 16)} | (learner or {}))
    training = TrainingOptions(**{"epochs": 3, "batch_size": 16} | options)
    return Engine(
        strategy(net, stream.info),
        stream,
        optimizer or (lambda p: torch.optim.Adam(p, lr=0.01)),
        training,
        EvaluationOptions(every=every, samples=15, batch_size=30),
        make_scheduler=scheduler,
    )


def close(alone, together):
    for one, other in zip(alone, together, strict=True):
        a, b = state(one.strategy), state(other.strategy)
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
        np.testing.assert_allclose(other.record.accuracy, one.record.accuracy, atol=0.051, rtol=0)


def both(**options):
    """Train replicas alone and as a population, compare them, return the population."""
    alone = [make(seed, **options) for seed in SEEDS]
    for engine in alone:
        engine.run()
    population = Population([make(seed, **options) for seed in SEEDS], always=True)
    population.run()
    assert not population.notes
    close(alone, population.engines)
    return population


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.003, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.02),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("kept", ["keep", "reset"])
def test_optimisers(name, kept):
    both(optimizer=OPTIMISERS[name], optimizer_state=kept)


def test_elementwise_optimisers_are_shared_and_others_are_not():
    for name, expected in (("adamw", True), ("normed", False)):
        engines = [make(seed, optimizer=OPTIMISERS.get(name, NormedSGD)) for seed in SEEDS]
        for engine in engines:
            engine.begin(0)
        assert alike(engines) is expected, name


class NormedSGD(torch.optim.SGD):
    """Divides by the norm of the parameter's whole gradient, as LARS does: not elementwise."""

    def __init__(self, params):
        super().__init__(params, lr=0.05)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = p.grad / p.grad.norm().clamp_min(1e-3)
        return super().step(closure)


def test_an_optimiser_that_is_not_elementwise():
    both(optimizer=NormedSGD)


def test_clipping_is_by_replica():
    both(optimizer=OPTIMISERS["sgd"], clip_norm=0.05)


def test_schedule():
    population = both(scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=15))
    for engine in population.engines:
        rate = engine.update.optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(0.0, abs=1e-9)
        assert engine.scheduler.last_epoch == 15


def test_batch_norm_and_dropout():
    """Without biases before the normalisation: their gradient is rounding alone, which Adam makes large."""
    both(learner={"norm": "batch", "dropout": 0.3, "bias": False})


def test_curves():
    both(every=4)


def test_learning_rate_by_replica():
    rates = [0.01, 0.003, 0.03]
    options = [{"optimizer": lambda p, rate=rate: torch.optim.Adam(p, lr=rate)} for rate in rates]
    alone = [make(0, **o) for o in options]
    for engine in alone:
        engine.run()
    population = Population([make(0, **o) for o in options], always=True)
    population.run()
    close(alone, population.engines)
    weights = [state(e.strategy)["learner.head.weight"] for e in population.engines]
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)


CONSTRUCTIONS = {
    "split by seed": lambda: Split(3, class_order="shuffled"),
    "permuted by seed": lambda: Permuted(3),
}


@pytest.mark.parametrize("name", CONSTRUCTIONS)
@pytest.mark.parametrize("strategy", [Strategy, Joint])
def test_replicas_of_one_storage(name, strategy):
    """Class order, length, permutation and augmentation by seed, samples gathered from one storage."""
    base = TaskStream(Digits(), CONSTRUCTIONS[name](), "task", imbalance=2.0, samples_per_task=90, test_samples=20)
    streams = [base.with_seed(seed) for seed in SEEDS]
    assert streams[0].test(0).storage is streams[1].test(0).storage

    def engines():
        return [make(s.info.seed, strategy=strategy, stream=s, every=7) for s in streams]

    alone, population = engines(), Population(engines(), always=True)
    for engine in alone:
        engine.run()
    results = population.run()
    assert not population.notes
    close(alone, population.engines)
    for one, measured in zip(alone, results, strict=True):
        np.testing.assert_allclose(measured.train_loss, one.results().train_loss, rtol=1e-3, atol=1e-4)


def test_samples_of_one_storage_are_gathered_at_once():
    base = TaskStream(Digits(), Split(5), "task")
    engines = [make(seed, stream=base.with_seed(seed)) for seed in SEEDS]
    other = make(3, stream=TaskStream(Digits(), Split(5), "task", seed=3))
    for engine in [*engines, other]:
        engine.begin(0)
    together = batches.feed(engines)
    assert isinstance(together, batches.Gathered)
    assert isinstance(batches.feed([*engines, other]), batches.OneByOne)
    found = together.batch(slice(1, 3))
    for i in (1, 2):
        for field, own in zip(found[:4], next(engines[i].batches())[:4], strict=True):
            assert torch.equal(field[i - 1], own)
    assert batches.same_samples([e.stream.test(0) for e in engines])
    assert not batches.same_samples([engines[0].stream.test(0), engines[0].stream.test(1)])


@pytest.mark.parametrize("options", [{"epochs": 4}, {"epochs": None, "steps": 13}])
def test_uneven_lengths(options):
    """Lengths 70, 90, 70, 110 and 20 with batches of 16: other numbers of steps, other last batches."""
    samples = [35, 45, 35, 55, 10]
    alone = [make(i, samples=n, **options) for i, n in enumerate(samples)]
    for engine in alone:
        engine.run()
    population = Population([make(i, samples=n, **options) for i, n in enumerate(samples)], always=True)
    results = population.run()
    assert not population.notes
    close(alone, population.engines)
    for one, measured in zip(alone, results, strict=True):
        np.testing.assert_array_equal(measured.task_steps, one.results().task_steps)
        np.testing.assert_allclose(measured.train_loss, one.results().train_loss, rtol=1e-3, atol=1e-4)


class Explodes(Decayed):
    """Its loss becomes NaN in the second task where its strength says so."""

    def __init__(self, learner, info):
        super().__init__(learner, info, 10.0 if info.seed == 1 else 0.0)

    def penalty(self):
        return torch.where((self.tasks_seen > 0) & torch.as_tensor(self.strength > 1), torch.nan, 0.0)


def test_a_failed_replica_leaves_the_others_alone():
    alone = [make(seed, strategy=Explodes) for seed in SEEDS]
    for engine in (alone[0], alone[2]):
        engine.run()
    population = Population([make(seed, strategy=Explodes) for seed in SEEDS], always=True)
    results = population.run()
    assert list(population.errors) == [1]
    assert "task 2, step 1" in str(population.errors[1])
    assert not np.isnan(results[1].accuracy[0, :2]).any()
    assert np.isnan(results[1].accuracy[0, 2:]).all()
    close([alone[0], alone[2]], [population.engines[0], population.engines[2]])


class Broken(Strategy):
    """Has a defect in one method of the second task, for one seed."""

    broken: ClassVar[str] = ""

    def complain(self, where):
        if where == self.broken and self.info.seed == 1 and self.tasks_seen == 1:
            raise ValueError(f"no {where}")

    def begin_task(self, task):
        self.complain("begin_task")

    def end_task(self, task):
        self.complain("end_task")


@pytest.mark.parametrize("where", ["begin_task", "end_task"])
@pytest.mark.parametrize("stacked", [True, False])
def test_a_defect_in_one_replica_leaves_the_others_alone(where, stacked):
    kind = type("Broken", (Broken,), {"broken": where, "vectorizable": stacked or "no reason"})
    alone = [make(seed, strategy=kind) for seed in SEEDS]
    for engine in (alone[0], alone[2]):
        engine.run()
    with pytest.raises(ValueError, match=where):
        alone[1].run()
    population = Population([make(seed, strategy=kind) for seed in SEEDS], always=True)
    results = population.run()
    assert {i: repr(e) for i, e in population.errors.items()} == {1: f"ValueError('no {where}')"}
    close([alone[0], alone[2]], [population.engines[0], population.engines[2]])
    np.testing.assert_array_equal(np.isnan(results[1].accuracy), np.isnan(alone[1].results().accuracy))


def test_memory_that_runs_out_ends_all_replicas():
    def out(engine):
        raise MemoryError

    population = Population([make(seed) for seed in SEEDS], always=True)
    population.engines[1].pause = out
    with pytest.raises(MemoryError):
        population.run()


def test_a_number_is_a_tensor_in_arithmetic_and_decides_where_replicas_agree():
    values = [2.0, 4.0]

    def use(value, x):
        n = Number(value, values)
        assert n > 1
        assert n != 3
        assert bool(n)
        assert 0 < n <= 4
        with pytest.raises(TypeError, match="differs between replicas"):
            assert n > 3
        with pytest.raises(TypeError, match="outside of tensors"):
            float(n)
        return torch.stack([x * n, n * x, 1 - n, n - 1, n / x, 8 / n, n**2, 2**n, -n, torch.where(x > 0, n, x), n + n])

    out = torch.func.vmap(use)(torch.tensor(values), torch.tensor([1.0, 10.0]))
    expected = [[2, 2, -1, 1, 2, 4, 4, 4, -2, 2, 4], [40, 40, -3, 3, 0.4, 2, 16, 16, -4, 4, 8]]
    torch.testing.assert_close(out, torch.tensor(expected))


class Cut(Exception):
    pass


@pytest.mark.parametrize("samples", [(40, 40, 40), (35, 45, 10)])
def test_resumed_at_any_block_it_ends_as_if_uninterrupted(samples):
    def population(pause=None):
        engines = [make(i, samples=n, epochs=2, every=3) for i, n in enumerate(samples)]
        engines[0].pause = pause
        return Population(engines, always=True)

    whole = population()
    whole.run()
    saved = []
    writing = population()
    writing.engines[0].pause = lambda engine: saved.append(_bytes(writing.state_dict()))
    writing.run()
    assert len(saved) > 6
    for content in saved:
        resumed = population(lambda engine: None)
        resumed.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
        resumed.run()
        close(whole.engines, resumed.engines)
        for a, b in zip(whole.engines, resumed.engines, strict=True):
            np.testing.assert_allclose(a.results().curve_accuracy, b.results().curve_accuracy, atol=0.067)
            np.testing.assert_allclose(a.results().train_loss, b.results().train_loss, rtol=1e-3, atol=1e-4)


def _bytes(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_a_replica_is_saved_without_the_others():
    population = Population([make(seed) for seed in range(8)], always=True)
    sizes = []
    population.engines[0].pause = lambda engine: sizes.append(len(_bytes(engine.state_dict())))
    population.run()
    alone = make(0)
    own = []
    alone.pause = lambda engine: own.append(len(_bytes(engine.state_dict())))
    alone.run()
    assert sizes == pytest.approx(own, rel=0.05)


def test_early_stopping_ends_each_replica_at_its_own_time(monkeypatch):
    def stop(engine):
        engine.stopped = engine._epoch_end and engine.step >= 10 * (engine.seed + 1)

    monkeypatch.setattr(Engine, "check_stopping", stop)
    population = both(epochs=5)
    assert [e.record.task_steps for e in population.engines] == [[10] * 3, [20] * 3, [25] * 3]


def test_neighbours():
    assert list(lanes._runs([0, 1, 2, 4, 6, 7])) == [slice(0, 3), slice(4, 5), slice(6, 8)]


def test_engines_are_not_needed_twice():
    """A population may be copied before it runs; both copies end alike."""
    engines = [make(seed) for seed in SEEDS]
    copies = copy.deepcopy(engines)
    Population(engines, always=True).run()
    Population(copies, always=True).run()
    close(engines, copies)


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5), (5,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_give_gradients_in_memory_order(shape, bias):
    """The same outputs and gradients as torch's layer, one replica at a time, but laid out as the weights are."""
    layers = [nn.Linear(5, 6, bias=bias) for _ in range(4)]
    skeleton = nn.Linear(5, 6, bias=bias)
    in_memory_order(skeleton)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in skeleton.named_parameters()]
    stacked = {n: torch.stack([m.get_parameter(n).detach() for m in layers]).requires_grad_() for n in names}
    out = vmap(lambda parameters, own: functional_call(skeleton, parameters, own))(stacked, x)
    alone = torch.stack([layer(own) for layer, own in zip(layers, x, strict=True)])
    torch.testing.assert_close(out, alone)
    out.square().sum().backward()
    alone.square().sum().backward()
    for name, leaf in stacked.items():
        assert leaf.grad.is_contiguous()
        torch.testing.assert_close(leaf.grad, torch.stack([m.get_parameter(name).grad for m in layers]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vmap(lambda p, own: functional_call(skeleton, p, own))(stacked, x).dtype == layers[0](x[0]).dtype
