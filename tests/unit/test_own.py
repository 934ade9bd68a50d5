"""Streams and learners of a user's own: what does not fit is told in one line, before anything is trained."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from cl.errors import ConfigError, TrainingError
from cl.learners.base import Learner
from cl.learners.mlp import MLP
from cl.measures.savings import Savings
from cl.own import check_learner, check_stream
from cl.seeding import seeded, step_keys
from cl.strategy import Strategy
from cl.streams.base import Task
from cl.streams.data import Data
from cl.testing import TinyStream
from cl.testing.tiny import TinySequences, engine

INFO = TinyStream("class").info  # 3 tasks of 2 classes, samples of (1, 4, 4)


def facts(**changes):
    class Own(TinyStream):
        def __init__(self):
            super().__init__("class")
            self.info = dataclasses.replace(self.info, **changes)

    return Own()


class LocalLabels(TinyStream):
    """Counts the classes of every task from 0."""

    def __getitem__(self, k):
        task, data = super().__getitem__(k), super().__getitem__(k).train
        labels = data.labels - data.labels.min()
        return Task(
            k, task.classes, Data(data.inputs(torch.arange(len(data))), torch.arange(len(data)), labels, k), None
        )


class Doubles(TinyStream):
    def test(self, k):
        data = super().test(k)
        places = torch.arange(len(data))
        return Data(data.inputs(places).double(), places, data.labels, k)


class Empty(TinyStream):
    def test(self, k):
        return Data(torch.zeros(0, 1, 4, 4), torch.arange(0), torch.zeros(0, dtype=torch.long), k)


class NoPrint(TinyStream):
    def fingerprint(self):
        return None


class NoTest(TinyStream):
    def test(self, k):
        return None


@pytest.mark.parametrize(
    ("stream", "line"),
    [
        (
            lambda: LocalLabels("class"),
            r"classes \[2, 3\] of 6 outputs in LocalLabels, training split of task 1, got \[0, 1\]",
        ),
        (lambda: Doubles("class"), r"\(1, 4, 4\) and torch.float32 in Doubles, test split of task 0, got .*float64"),
        (lambda: Empty("class"), r"samples \(a cl.streams.data.Data\) in Empty, test split of task 0, got none"),
        (lambda: NoTest("class"), r"in NoTest, test split of task 0, got NoneType"),
        (lambda: NoPrint("class"), r"NoPrint.fingerprint to return a string, got None"),
        (lambda: facts(input_shape=(16,)), r"samples of shape \(16,\) and .* got \(1, 4, 4\)"),
        (lambda: facts(n_tasks=4), r"Own with task_classes of each of its 4 tasks, got 3"),
        (lambda: facts(n_classes=5), r"of 5 outputs in Own, training split of task 2, got too few outputs"),
    ],
)
def test_streams_that_do_not_fit(stream, line):
    with pytest.raises(ConfigError, match=line):
        check_stream(stream())


def test_names_of_classes_are_asked_for():
    stream = TinyStream("class")
    stream.class_names = stream.class_names[:1]
    with pytest.raises(ConfigError, match="TinyStream with class_names of each of its 3 tasks, got 1"):
        check_stream(stream)


@pytest.mark.parametrize("scenario", ["task", "domain", "class", "online"])
def test_streams_that_fit(scenario):
    check_stream(TinyStream(scenario))
    for kind in ("padded", "steps", "real") if scenario in ("domain", "online") else ("padded", "steps"):
        check_stream(TinySequences(kind, scenario))


class Plain(nn.Module):
    """Not a learner."""


class OwnForward(Learner):
    def __init__(self):
        super().__init__()
        self.head, self.widths = nn.Linear(16, 6), ()

    def forward(self, x, gates=None):
        return self.head(x.flatten(1))


class Broken(MLP):
    def pool(self, x):
        return x[:, :3]


@pytest.mark.parametrize(
    ("learner", "line"),
    [
        (Plain, "`learner._target_` a subclass of cl.learners.base.Learner, got Plain"),
        (OwnForward, "OwnForward to set `blocks`"),
        (lambda: Broken((1, 4, 4), 6), "Broken to answer two samples of shape .*, got RuntimeError: mat1 and mat2"),
        (lambda: MLP((1, 4, 4), 4), r"MLP to return logits \(2, 6\) of two samples, got \(2, 4\)"),
    ],
)
def test_learners_that_do_not_fit(learner, line):
    with pytest.raises(ConfigError, match=line):
        check_learner(learner(), INFO)


def test_a_learner_that_fits_is_left_as_it_was():
    learner = MLP((1, 4, 4), 6, norm="batch")
    learner.blocks[1].eval()
    before = {n: b.clone() for n, b in learner.named_buffers()}
    modes = [module.training for module in learner.modules()]
    check_learner(learner, INFO)
    assert [module.training for module in learner.modules()] == modes
    assert all(torch.equal(b, before[n]) for n, b in learner.named_buffers())


class Noisy(Strategy):
    """Draws from torch's own generator, as layers and methods of a user's may."""

    def begin_task(self, task):
        self.drawn = float(torch.rand(()))

    def loss(self, batch):
        return super().loss(batch) * (0.5 + torch.rand(()) + 0 * self.drawn)

    def predict(self, x, task=None):
        return super().predict(x, task) + 0.1 * torch.rand(())


class Stochastic(MLP):
    def __init__(self, info):
        super().__init__(info.input_shape, info.n_classes, hidden=(16,))
        self.blocks[0].append(nn.Dropout(0.5))


def test_draws_from_torchs_own_generator_are_those_of_the_seed():
    """The same run twice; cut in the middle of a task and continued; and the generator is left as it was."""
    saved = []

    def save(running):
        if running.task == 1 and running.begun and not saved:
            saved.append((running.step, copy.deepcopy(running.state_dict())))

    def make(pause=None):
        return engine(Noisy, TinyStream("class", samples=600), Stochastic, pause, epochs=1)

    before = torch.get_rng_state()
    first = make(save).run()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    second = make().run()
    torch.rand(7)
    (step, half), resumed = saved[0], make()
    resumed.load_state_dict(half)
    third = resumed.run()
    assert 0 < step < first.task_steps[1]
    for other in (second, third):
        np.testing.assert_array_equal(first.train_loss, other.train_loss)
        np.testing.assert_array_equal(first.accuracy, other.accuracy)
        np.testing.assert_array_equal(first.loss, other.loss)
    with seeded(1, "learner"):
        other_seed = engine(Noisy, TinyStream("class", seed=1, samples=600), Stochastic, epochs=1).run()
    assert not np.array_equal(first.train_loss, other_seed.train_loss)


def test_measures_that_train_copies_follow_the_seed_too():
    def savings():
        made = engine(Strategy, TinyStream("class"), Stochastic, epochs=2)
        made.measures = [Savings(steps=6, batch_size=16)]
        return made.run().measures["savings"]["values"]

    before = torch.get_rng_state()
    first = savings()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    np.testing.assert_array_equal(first, savings())


def test_a_learner_whose_constructor_stops_at_itself_is_told():
    class Bare(Learner):
        def __init__(self):
            self.widths = ()

    with pytest.raises(ConfigError, match=r"Bare.__init__ to call super\(\).__init__ before anything else"):
        check_learner(Bare(), INFO)


def test_a_loss_that_is_no_number_is_told_with_its_task_and_step_counted_from_one():
    class Diverging(Strategy):
        def loss(self, batch):
            third_step_of_the_second_task = step_keys(0, 1, 2, 1)[0]
            return super().loss(batch) * torch.where(batch.key == third_step_of_the_second_task, torch.nan, 1.0)

    with pytest.raises(TrainingError, match=r"got nan at task 2, step 3; try"):
        engine(Diverging, TinyStream("class"), epochs=1).run()
