"""Methods that give each task its own units, weights or network."""

import numpy as np
import pytest
import torch

from cl.testing.tiny import TinyStream, engine, state, train
from strategies.frozen import Frozen
from strategies.scratch import Scratch
from strategies.separate import Separate
from strategies.warm_start import WarmStart
from strategies.xdg import XdG


@pytest.mark.parametrize("make", [Separate, WarmStart])
def test_networks_of_earlier_tasks_stay(make):
    made = engine(make, TinyStream("task"))
    made.run_task(0)
    first = state(made.strategy.learner)
    made.run_task(1)
    made.run_task(2)
    kept = state(made.strategy.earlier[0])
    assert all(torch.equal(first[n], kept[n]) for n in first)
    assert made.record.accuracy[1, 0] == made.record.accuracy[3, 0]
    assert made.strategy.stored_bytes() == {"earlier": 2 * sum(4 * t.numel() for t in first.values())}


def test_warm_start_begins_where_the_last_network_ended_and_separate_does_not():
    for make, same in ((WarmStart, True), (Separate, False)):
        made = engine(make, TinyStream("task"))
        made.run_task(0)
        made.strategy.grow(1)
        old, new = state(made.strategy.earlier[0]), state(made.strategy.learner)
        assert torch.equal(old["head.weight"], new["head.weight"]) == same


def test_every_task_starts_from_a_network_of_its_own():
    separate = engine(Separate, TinyStream("task")).strategy
    networks = [separate.learner, *(separate.next_network(k) for k in (1, 2, 2))]
    weights = [network.head.weight for network in networks]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(weights[2], weights[3])


def test_scratch_learns_each_task_as_if_it_were_alone():
    whole = train(Scratch, TinyStream("task"), epochs=8)
    alone = train(Separate, TinyStream("task"), epochs=8)
    np.testing.assert_array_equal(np.diagonal(whole.record.accuracy[1:]), np.diagonal(alone.record.accuracy[1:]))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_the_backbone_is_frozen_after_so_many_tasks(after):
    made = engine(Frozen, TinyStream("task"), after=after)
    before = state(made.strategy.learner.blocks)
    for k in range(3):
        made.run_task(k)
        now = state(made.strategy.learner.blocks)
        assert all(torch.equal(before[n], now[n]) for n in now) == (k >= after)
        before = now


def test_each_task_has_its_share_of_units_off_and_the_choice_looks_random():
    strategy = engine(XdG, TinyStream("task", tasks=6), share=0.75).strategy
    gates = torch.cat([strategy.gate_0, strategy.gate_1], 1)
    assert (strategy.gate_0.sum(1) == 4).all()
    assert (strategy.gate_1.sum(1) == 4).all()
    assert not torch.equal(strategy.gate_0, strategy.gate_1), "layers of one width choose apart"
    overlap = (gates @ gates.T).fill_diagonal_(0).sum() / 30 / 2
    assert 0.3 < overlap < 2.0  # two sets of 4 in 16 share one unit on average


def test_a_gated_unit_neither_speaks_nor_learns():
    strategy = engine(XdG, TinyStream("task"), share=0.5).strategy
    x = torch.rand(4, 1, 4, 4)
    strategy.logits(x, torch.full((4,), 1)).sum().backward()
    off = strategy.gate_0[1] == 0
    gradient = strategy.learner.blocks[0][1].weight.grad
    assert (gradient[off] == 0).all()
    before = strategy.predict(x, 1)
    strategy.learner.blocks[0][1].weight.data[off] += 1
    assert torch.equal(before, strategy.predict(x, 1))
    assert not torch.equal(before, strategy.predict(x, 0))
