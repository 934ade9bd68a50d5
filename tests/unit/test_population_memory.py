"""Populations and memory: chunks, what a replica takes, and what is let go of."""

import gc
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cl.population import Population, memory
from strategies.dgr import DGR
from strategies.icarl import ICaRL
from strategies.lwf import LwF
from strategies.ogd import OGD
from strategies.progressive import Progressive
from strategies.separate import Separate
from strategies.warm_start import WarmStart
from tests.unit.test_population import close, make


def test_chunks():
    whole = Population([make(seed) for seed in range(5)], always=True)
    whole.run()
    parts = Population([make(seed) for seed in range(5)], limit=2, always=True)
    parts.run()
    assert "training 2 at a time" in parts.notes[0]
    close(whole.engines, parts.engines)


def test_replicas_that_do_not_fit_into_memory_are_split(monkeypatch):
    engines = [make(seed) for seed in range(4)]
    room = int(2.5 * memory.bytes_per_replica(engines[0]) / memory.SHARE)
    monkeypatch.setattr(memory, "free_bytes", lambda device: room)
    assert memory.fitting(engines) == 2
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert memory.fitting(engines) == 1


def test_bytes_per_replica_counts_weights_and_activations():
    small, large = make(0), make(0, batch_size=32)
    weights = sum(p.numel() * 4 for p in small.strategy.parameters())
    one, two = memory.bytes_per_replica(small), memory.bytes_per_replica(large)
    assert one > 5 * weights
    assert two - one == 2 * 16 * 4 * (16 + 16 + 16)  # kept twice over: input and two hidden layers of 16 more samples


def test_bytes_per_replica_counts_what_tasks_to_come_add():
    """Two of three tasks store the gradients of 10 or of 11 samples, each as large as the network."""
    ten, eleven = (make(0, strategy=partial(OGD, samples=n)) for n in (10, 11))
    network = sum(p.numel() * 4 for p in ten.strategy.parameters())
    assert memory.bytes_per_replica(eleven) - memory.bytes_per_replica(ten) == 2 * 2 * network  # kept twice over


@pytest.mark.parametrize("strategy", [LwF, ICaRL, DGR, Progressive, Separate, WarmStart])
def test_bytes_per_replica_counts_the_networks_that_tasks_to_come_add(strategy):
    """Also of a run that goes on after its first task."""
    engine = make(0, scenario="task", strategy=strategy, epochs=1)
    before = memory.grown(engine)
    engine.evaluate_row(0)
    engine.run_task(0)
    between = memory.grown(engine)
    engine.run()
    tensors = (*engine.strategy.parameters(), *engine.strategy.buffers())
    assert before == between == sum(t.numel() * t.element_size() for t in tensors)
    assert memory.grown(engine) == before


def test_replicas_that_are_done_leave_their_memory_to_those_that_wait():
    """Of two layers with weights (16, 16), the stacks of weights and of Adam's two moments."""

    def run(keep):
        population = Population([make(seed, epochs=1) for seed in range(4)], limit=2, always=True, keep=keep)
        alive: list[int] = []

        def look(engine):
            gc.collect()
            tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, nn.Parameter) and not o.is_meta]
            alive.append(len({t.untyped_storage().data_ptr() for t in tensors if t.shape[-2:] == (16, 16)}))

        population.engines[2].pause = look
        return alive, population.run()

    (kept, expected), (freed, results) = run(True), run(False)
    assert kept[0] - freed[0] == 2 * 3
    for one, other in zip(expected, results, strict=True):
        np.testing.assert_array_equal(one.accuracy, other.accuracy)
        assert one.costs.keys() == other.costs.keys()
