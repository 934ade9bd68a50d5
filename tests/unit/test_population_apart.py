"""Populations that run replica by replica: they say why, and every replica is the run alone."""

import zlib
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch

from cl.learners.cnn import CNN
from cl.population import Population
from cl.population.number import Number
from cl.population.population import FEW
from cl.strategy import Strategy
from cl.testing.tiny import state
from strategies.cbp import CBP
from strategies.er import ER
from strategies.gpm import GPM
from strategies.lwf import LwF
from tests.unit.test_check_strategy import Decayed
from tests.unit.test_population import SEEDS, close, make


def alone_and_together(strategy):
    """Train engines alone and as a population; return the engines and the population."""
    alone = [make(seed, strategy=strategy) for seed in SEEDS]
    for engine in alone:
        engine.run()
    population = Population([make(seed, strategy=strategy) for seed in SEEDS], always=True)
    population.run()
    return alone, population


class Branches(Decayed):
    """Uses its number as a Python number, which a stack cannot."""

    def __init__(self, learner, info):
        super().__init__(learner, info, 0.01 * (info.seed + 1))

    def penalty(self):
        return super().penalty() if self.strength > 0.015 else 0 * super().penalty()


def test_numbers_that_cannot_be_stacked_run_apart():
    alone, population = alone_and_together(Branches)
    assert "different numbers" in population.notes[0]
    close(alone, population.engines)


class Alone(Strategy):
    """Says that it cannot be stacked."""

    vectorizable = "it looks at the loss"

    def step(self, batch, update):
        loss = update(self, batch)
        assert loss.item() > 0
        return loss


def test_a_strategy_that_is_not_vectorizable_runs_replica_by_replica_and_says_so():
    alone, population = alone_and_together(Alone)
    assert population.notes == ["Alone runs replica by replica: it looks at the loss"]
    for one, other in zip(alone, population.engines, strict=True):
        for name, value in state(one.strategy).items():
            assert torch.equal(value, state(other.strategy)[name])


class Forgets(Strategy):
    """Edits moments by a choice that depends on data, which a stack cannot."""

    def edit_moments(self, moments):
        for own in moments["learner.head.bias"].values():
            if own.sum() > 0:
                own.zero_()


def test_edits_of_moments_that_cannot_be_stacked_run_apart():
    alone, population = alone_and_together(Forgets)
    [note] = population.notes
    assert "Forgets runs replica by replica" in note
    close(alone, population.engines)


def test_convolutions_on_a_cpu_run_one_after_another():
    def engine(seed):
        made = make(seed, epochs=1)
        made.strategy.learner = CNN(made.stream.info.input_shape, made.stream.info.n_classes, channels=[4], hidden=[])
        return made

    assert notes(engine) == ["Strategy runs replica by replica: convolutions and LSTMs are quicker so on a CPU"]


def notes(make_one, replicas=FEW, of=None):
    population = Population([make_one(seed) for seed in range(replicas)], of=of)
    population.run()
    return population.notes


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("WIDE", "networks as large as this are quicker so on a CPU"),
        ("LARGE", "steps as large as these are quicker so on a CPU"),
    ],
)
def test_what_is_quicker_so_on_a_cpu_runs_one_after_another(monkeypatch, limit, reason):
    monkeypatch.setattr(f"cl.population.population.{limit}", 500)
    assert notes(partial(make, epochs=1)) == [f"Strategy runs replica by replica: {reason}"]


def test_a_few_replicas_on_a_cpu_run_one_after_another():
    """Those count that ended before, so that a resumed run computes as the first one did."""
    few = [f"Strategy runs replica by replica: fewer than {FEW} are quicker so on a CPU"]
    one = partial(make, epochs=1)
    assert notes(one, FEW - 1) == few
    assert notes(one, FEW) == []
    assert notes(one, FEW - 1, of=FEW) == []


class Layered(Strategy):
    """Weight decay whose strengths are in something that no stack can hold; strength 0.3 for even seeds, 0 for odd."""

    def __init__(self, learner, info, wrap, read):
        super().__init__(learner, info)
        self.strengths, self.read = wrap(0.3 * (1 - info.seed % 2)), read

    def penalty(self):
        return self.read(self.strengths) * sum(p.square().sum() for p in self.learner.parameters())


class Box:
    """A plain object."""

    def __init__(self, content):
        self.content = content


HOLDERS = {
    "list": (lambda s: [s, 1.0], lambda held: held[0]),
    "tuple": (lambda s: (1.0, s), lambda held: held[1]),
    "dict": (lambda s: {"a": {"b": s}}, lambda held: held["a"]["b"]),
    "tensor": (torch.tensor, lambda held: held),
    "array": (lambda s: np.array([s]), lambda held: float(held[0])),
    "object": (Box, lambda held: held.content),
    "closure": (lambda s: lambda: s, lambda held: held()),
    "deque": (lambda s: deque([s]), lambda held: held[0]),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_replicas_that_differ_in_more_than_plain_numbers_run_apart(name):
    wrap, read = HOLDERS[name]
    alone, population = alone_and_together(partial(Layered, wrap=wrap, read=read))
    [note] = population.notes
    assert "Layered: replicas with different attributes run apart: DiffersError: `strengths` differs" in note
    close(alone, population.engines)


@pytest.mark.parametrize("name", HOLDERS)
def test_equal_values_are_no_reason_to_run_apart(name):
    wrap, read = HOLDERS[name]
    _, population = alone_and_together(partial(Layered, wrap=lambda _: wrap(0.1), read=read))
    assert population.notes == []


def test_what_cannot_be_compared_runs_apart_and_says_so():
    class Slots:
        __slots__ = ("content",)

        def __init__(self, content):
            self.content = content

    alone, population = alone_and_together(partial(Layered, wrap=Slots, read=lambda held: held.content))
    assert "`strengths` differs" in population.notes[0]
    close(alone, population.engines)


class Reads(Strategy):
    """Weight decay by a value of any kind: floats are the strength, of others each value and type has its own."""

    def __init__(self, learner, info, values):
        super().__init__(learner, info)
        self.value = values[info.seed % 2]

    def penalty(self):
        value = self.value
        strength = value if type(value) in (float, Number) else zlib.crc32(repr(value).encode()) / 2**33
        return strength * sum(p.square().sum() for p in self.learner.parameters())


PAIRS = [
    *((True, 1), (1, 1.0), (False, True), (2, 3), (None, 0.3), (None, 3), ("a", "b"), (0.3, [0.3]), (0.3, "0.3")),
    *(([1, [2]], [1, [3]]), ((1, (True,)), (1, (1,))), ((0.3, 1), (0.3, 1.0)), ({"a": None}, {"a": 0}), ((), [])),
]


@pytest.mark.parametrize("values", PAIRS, ids=str)
def test_values_of_any_kind_stay_with_their_replica(values):
    alone, population = alone_and_together(partial(Reads, values=values))
    close(alone, population.engines)


FIELDS = [
    (ER, "memory_size", 20, 30),
    (ER, "replay_batch", None, 4),
    (ER, "draw", "uniform", "balanced"),
    (LwF, "squared_temperature", True, False),
    (LwF, "compete", True, False),
    (GPM, "threshold", 0.9, [0.8, 0.9, 0.95]),
    (CBP, "maturity", 0, 3),
]


@pytest.mark.parametrize(("strategy", "field", "one", "other"), FIELDS, ids=lambda v: getattr(v, "__name__", str(v)))
def test_fields_stay_with_their_replica(strategy, field, one, other):
    def with_own(learner, info):
        return strategy(learner, info, **{field: (one, other)[info.seed % 2]})

    alone, population = alone_and_together(with_own)
    close(alone, population.engines)


class BySeed(Strategy):
    """Looks at the seed, or does not."""

    looks = True

    def penalty(self):
        return (self.info.seed if self.looks else self.info.n_tasks) * self.learner.head.bias.square().sum()


@pytest.mark.parametrize("looks", [True, False])
def test_the_seed_keeps_only_those_apart_that_compute_with_it(looks):
    alone, population = alone_and_together(type("BySeed", (BySeed,), {"looks": looks}))
    assert bool(population.notes) is looks
    close(alone, population.engines)


class Kept(Strategy):
    """Keeps what differs between replicas and compares with no other, for its host path."""

    def begin_task(self, task):
        self.tasks = [task]


def test_what_only_the_host_path_uses_keeps_no_replicas_apart():
    alone, population = alone_and_together(Kept)
    assert population.notes == []
    close(alone, population.engines)
