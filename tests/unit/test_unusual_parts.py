"""Strategies whose state is made late or kept aside, and learners with frozen, added or unusual parameters."""

import copy
import io
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.seeding import generator
from cl.strategy import Strategy
from cl.testing import TinyStream
from cl.testing.tiny import engine
from cl.unsaved import attributes, lost
from strategies.hat import HAT
from strategies.lamaml import LaMAML
from strategies.ogd import OGD
from strategies.packnet import PackNet
from strategies.usage import Usage


class LateTeacher(Strategy):
    """Copies the learner where a task ends."""

    def end_task(self, task):
        self.teacher = copy.deepcopy(self.learner).requires_grad_(False)


class LateBuffer(Strategy):
    """Registers a buffer where a task begins."""

    def begin_task(self, task):
        if task.index == 1:
            self.register_buffer("mean", torch.zeros(3))


class Declared(Strategy):
    """Fills a buffer that was None."""

    def __init__(self, learner, info):
        super().__init__(learner, info)
        self.register_buffer("fisher", None)

    def grow(self, k):
        if k == 1:
            self.teacher = copy.deepcopy(self.learner).requires_grad_(False)

    def end_task(self, task):
        self.fisher = torch.ones(3)


def saved_between(make):
    """Return the state after the second task, and what the user was told."""
    files, told = [], []

    def save(running):
        if running.task == 2 and not files:
            file = io.BytesIO()
            torch.save(running.state_dict(), file)
            files.append(file.getvalue())

    running = engine(make, TinyStream("class"), epochs=1, pause=save)
    running.update.tell = told.append
    running.run()
    return torch.load(io.BytesIO(files[0]), weights_only=True), told


@pytest.mark.parametrize(("make", "part"), [(LateTeacher, "teacher"), (LateBuffer, "mean")])
def test_parts_made_outside_of_grow_are_told_before_a_resumed_run_fails_on_them(make, part):
    state, told = saved_between(make)
    assert any(f"{make.__name__} makes {part} in begin_task or end_task" in line for line in told), told
    resumed = engine(make, TinyStream("class"), epochs=1)
    with pytest.raises(ConfigError, match=rf"the parts that {make.__name__} makes in __init__ and grow .*{part}"):
        resumed.load_state_dict(state)


def test_parts_made_in_grow_and_buffers_that_are_filled_are_not():
    state, told = saved_between(Declared)
    assert told == []
    resumed = engine(Declared, TinyStream("class"), epochs=1)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.strategy.fisher, torch.ones(3))


class Box:
    """Somebody's memory."""

    def __init__(self):
        self.kept = []


@pytest.mark.parametrize(
    ("thing", "use"),
    [
        (Box(), lambda box: box.kept.append(1)),
        ([Box()], lambda boxes: boxes[0].kept.append(1)),
        (torch.Generator(), lambda g: torch.rand(1, generator=g)),
        (np.random.default_rng(0), lambda g: g.random()),
        (random.Random(0), lambda g: g.random()),
    ],
    ids=["object", "list of objects", "torch", "numpy", "python"],
)
def test_what_changes_inside_of_an_object_is_lost(thing, use):
    strategy = engine(Strategy, TinyStream("class")).strategy
    strategy.thing = thing
    before = attributes(strategy)
    assert lost(strategy, before) == []
    use(thing)
    assert lost(strategy, before) == ["thing"]


def test_an_optimiser_of_one_s_own_is_lost():
    strategy = engine(Strategy, TinyStream("class")).strategy
    strategy.own = torch.optim.Adam(strategy.learner.parameters())
    before = attributes(strategy)
    strategy.learner(torch.ones(2, 1, 4, 4)).sum().backward()
    strategy.own.step()
    assert lost(strategy, before) == ["own"]


class Added(nn.Module):
    """A frozen layer and what is added to it."""

    def __init__(self, inputs, width):
        super().__init__()
        self.layer = nn.Linear(inputs, width).requires_grad_(False)
        self.adapter = nn.Parameter(torch.randn(width, inputs, generator=generator(0, "adapter")) / 10)

    def forward(self, x):
        return self.layer(x) + x @ self.adapter.T

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        assert state == {"version": 1}


def adapted(info, block=Added):
    class Adapted(Learner):
        def __init__(self):
            super().__init__("auto")
            inputs = math.prod(info.input_shape)
            self.widths = (8,)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Flatten(), block(inputs, 8), nn.ReLU())])
            self.head = nn.Linear(8, info.n_classes)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, gates=None):
            return super().forward(x, gates) * self.scale

    return Adapted()


def normed(inputs, width):
    return nn.utils.parametrizations.weight_norm(nn.Linear(inputs, width))


@pytest.mark.parametrize("make", [HAT, Usage])
@pytest.mark.parametrize("block", [Added, normed])
def test_methods_on_units_refuse_weights_that_they_do_not_act_on(make, block):
    """Adapters that no mask reaches would let old tasks move, in silence."""
    with pytest.raises(ConfigError, match=r"one weight layer a block \(mlp, cnn\) for \w+, got Adapted with blocks"):
        engine(make, TinyStream("task"), lambda info: adapted(info, block))


def test_packnet_refuses_frozen_weights():
    with pytest.raises(ConfigError, match=r"with all weights trained for packnet.*got \['blocks"):
        engine(PackNet, TinyStream("task"), adapted)


@pytest.mark.parametrize(("make", "fields"), [(LaMAML, LaMAML.small), (OGD, {})])
def test_frozen_parameters_and_scalars_are_trained_around(make, fields):
    running = engine(make, TinyStream("task"), adapted, epochs=1, **fields)
    frozen = running.strategy.learner.blocks[0][1].layer.weight.clone()
    adapter = running.strategy.learner.blocks[0][1].adapter.clone()
    running.run()
    assert torch.equal(running.strategy.learner.blocks[0][1].layer.weight, frozen)
    assert not torch.equal(running.strategy.learner.blocks[0][1].adapter, adapter)


def test_extra_state_of_a_module_is_saved_and_restored():
    files = []
    running = engine(
        Strategy,
        TinyStream("class"),
        adapted,
        epochs=1,
        pause=lambda e: torch.save(e.state_dict(), files.append(io.BytesIO()) or files[-1]),
    )
    whole = running.run()
    resumed = engine(Strategy, TinyStream("class"), adapted, epochs=1)
    resumed.load_state_dict(torch.load(io.BytesIO(files[1].getvalue()), weights_only=True))
    np.testing.assert_array_equal(resumed.run().accuracy, whole.accuracy)
