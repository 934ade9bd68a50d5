"""Early stopping judges what is trained, by what was held out of all tasks that are trained on."""

import numpy as np
import pytest
import torch

from cl.engine import Engine
from cl.errors import ConfigError
from cl.evaluator import EvaluationOptions
from cl.seeding import seeded
from cl.stopping import EarlyStopping
from cl.streams.base import Task
from cl.testing import TinyStream
from cl.testing.tiny import adam, small_mlp
from cl.training import TrainingOptions
from strategies.cumulative import Cumulative
from strategies.generative_classifier import GenerativeClassifier
from strategies.joint import Joint
from strategies.naive import Naive

HELD_OUT = 10


class Validated(TinyStream):
    """The last samples of every class are held out of training."""

    def __getitem__(self, k):
        task, end = super().__getitem__(k), self._samples
        return Task(task.index, task.classes, self._split(k, 0, end - HELD_OUT), self._split(k, end - HELD_OUT, end))


def make(strategy, patience=2, epochs=60, **fields):
    stream = Validated("class")
    with seeded(0, "learner"):
        learner = small_mlp(stream.info)
    with seeded(0, "strategy"):
        made = strategy(learner, stream.info, **fields)
    options = TrainingOptions(epochs=epochs, batch_size=16, patience=patience)
    return Engine(made, stream, adam, options, EvaluationOptions())


@pytest.mark.parametrize(
    ("strategy", "fields", "tasks"), [(Naive, {}, [1]), (Cumulative, {}, [0, 1]), (Joint, {"retrain": True}, [0, 1])]
)
def test_what_is_looked_at_during_the_second_task(strategy, fields, tasks):
    engine = make(strategy, epochs=1, **fields)
    engine.evaluate_row(0)
    engine.run_task(0)
    engine.begin(1)
    assert [int(split.batch(torch.tensor([0]), torch.tensor(0)).task) for split in engine.stopping.splits] == tasks


def test_joint_training_is_judged_by_all_tasks():
    engine = make(Joint)
    engine.begin(0)
    assert [len(split) for split in engine.stopping.splits] == [2 * HELD_OUT] * 3
    with torch.no_grad():
        batches = [b for split in engine.stopping.splits for b in split.in_order(1000)]
        losses = torch.cat([engine.strategy.per_sample(engine.strategy.logits(b.x, b.task), b) for b in batches])
    assert not engine.stopping.should_stop()
    assert engine.stopping.best == pytest.approx(float(losses.mean()), rel=1e-6)


def test_a_generative_classifier_is_judged_by_its_models():
    """The learner's loss never falls: with it every task ended after three epochs."""
    engine = make(GenerativeClassifier, epochs=8, hidden=(32,), latent=4)
    engine.run()
    assert min(engine.record.task_steps) > 3 * engine.schedule.steps_per_epoch


class Scripted(Naive):
    """Its validation losses are written down."""

    losses = iter(())

    def validation_loss(self, batch):
        return torch.full((len(batch.y),), next(self.losses))


@pytest.mark.parametrize(
    ("losses", "waits"),
    [([3, 2, 2, 1, 1, 1], [0, 0, 1, 0, 1, 2]), ([1, 2, 3], [0, 1, 2]), ([1, float("nan"), 2], [0, 1, 2])],
)
def test_a_task_ends_after_so_many_epochs_without_a_better_loss(losses, waits):
    engine = make(Scripted)
    strategy, split = engine.strategy, engine.stream[0].validation
    strategy.losses = iter([float(v) for v in losses])
    stopping = EarlyStopping(2, [split], strategy)
    assert [(stopping.should_stop(), stopping.waited) for _ in losses] == [(w >= 2, w) for w in waits]
    assert stopping.best == np.nanmin(losses)
    assert not EarlyStopping(None, [split], strategy).should_stop()
    assert not EarlyStopping(2, [], strategy).should_stop()


def test_a_loss_of_another_shape_is_refused():
    class Mean(Naive):
        def validation_loss(self, batch):
            return super().validation_loss(batch).mean()

    engine = make(Mean)
    engine.begin(0)
    with pytest.raises(ConfigError, match=r"Mean\.validation_loss to return a tensor of 20 losses, got a tensor of sh"):
        engine.stopping.should_stop()


@pytest.mark.parametrize("every", [500, 5])
def test_points_of_a_curve_that_no_task_is_long_enough_for_are_told(every, caplog):
    stream, training = TinyStream(), TrainingOptions(epochs=1, batch_size=16)
    strategy = Naive(small_mlp(stream.info), stream.info)
    found = Engine(strategy, stream, adam, training, EvaluationOptions(every=every)).run()
    said = "evaluation.every=500 measures nothing within tasks of 5 steps"
    assert [r.message for r in caplog.records] == ([said] if every == 500 else [])
    assert found.curve_step.size == (0 if every == 500 else 3)
