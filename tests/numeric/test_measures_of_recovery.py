"""What comes back of forgotten tasks: by probes, a new head, or learning again."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from cl.learners import dropout
from cl.learners.mlp import MLP
from cl.measures import probes, savings
from cl.strategy import Strategy
from cl.streams.data import Data
from cl.testing import TinyStream
from cl.testing.tiny import engine as tiny_engine
from strategies.joint import Joint
from tests.numeric.test_measures import engine, values


def test_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    for n, d, classes in ((80, 10, 3), (20, 40, 2), (30, 30, 5)):
        x, y, test = rng.normal(size=(n, d)) * 3 + 1, rng.integers(0, classes, n) * 2, rng.normal(size=(50, d))
        scaler = StandardScaler().fit(x)
        reference = RidgeClassifier(alpha=1.0).fit(scaler.transform(x), y).predict(scaler.transform(test))
        np.testing.assert_array_equal(probes.ridge(torch.tensor(x), torch.tensor(y), torch.tensor(test)), reference)


def test_nearest_mean_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    x, y, test = rng.normal(size=(60, 8)), rng.integers(0, 4, 60) + 3, rng.normal(size=(50, 8))
    reference = NearestCentroid().fit(x, y).predict(test)
    np.testing.assert_array_equal(probes.nearest_mean(torch.tensor(x), torch.tensor(y), torch.tensor(test)), reference)


def test_probes_find_what_the_head_forgot() -> None:
    results = engine([probes.Probes(None)], epochs=20).run()
    assert results.accuracy[0, 3, 0] < 0.2
    assert values(results, "probe_task")[2, 0] > 0.8
    own = results.accuracy[0]
    expected = (values(results, "probe_all")[2, 0] - own[3, 0]) / (own[1, 0] - own[3, 0])
    assert values(results, "recovered_by_new_head")[0] == pytest.approx(expected, abs=1e-6)


def test_probes_after_the_last_task_are_scikit_learns() -> None:
    """Trained on the training samples of all tasks (`probe_task`: of one), asked about the test samples of each."""
    running = engine([probes.Probes(None)], epochs=3)
    results = running.run()
    learner = running.strategy.eval().learner

    def read(data: Data) -> tuple[np.ndarray, np.ndarray]:
        batch = next(data.in_order(99))
        with torch.no_grad():
            return learner.features(batch.x).double().numpy(), batch.y.numpy()

    train = [read(running.stream[k].train) for k in range(3)]
    x, y = np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])
    scaler, centroids = StandardScaler().fit(x), NearestCentroid().fit(x, y)
    every = RidgeClassifier(alpha=1.0).fit(scaler.transform(x), y)
    for k in range(3):
        test, truth = read(running.stream.test(k))
        alone = StandardScaler().fit(train[k][0])
        own = RidgeClassifier(alpha=1.0).fit(alone.transform(train[k][0]), train[k][1])
        expected = {
            "probe_all": every.predict(scaler.transform(test)),
            "nearest_mean": centroids.predict(test),
            "probe_task": own.predict(alone.transform(test)),
        }
        for name, predicted in expected.items():
            assert values(results, name)[2, k] == pytest.approx((predicted == truth).mean())


def test_savings_by_hand() -> None:
    fresh = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    assert savings.savings(fresh, np.array([0.85, 0.9, 0.9, 0.9, 0.9]), 0.05) == 1.0
    assert savings.savings(fresh, np.array([0.5, 0.7, 0.9, 0.9, 0.9]), 0.0) == 0.5
    assert savings.savings(fresh, np.array([0.5, 0.5, 0.5, 0.5, 0.5]), 0.0) == -0.25
    assert np.isnan(savings.savings(np.full(3, 0.9), fresh[:3], 0.0))


def test_an_untrained_network_saves_nothing_and_joint_training_everything() -> None:
    measure = savings.Savings(steps=20, batch_size=16, lr=0.01)
    running = engine([], "domain")
    running.strategy.eval()
    measure.start(running.strategy, running.stream)
    measure.after_task(2, running.strategy, running.stream)
    np.testing.assert_array_equal(measure.result()["savings"].values, [0, 0, np.nan])
    measure = savings.Savings(steps=20, batch_size=16, lr=0.01, tolerance=0.1)
    joint = engine([measure], "domain", epochs=20, make=Joint).run()
    np.testing.assert_array_equal(values(joint, "savings"), [1, 1, np.nan])


class Same(TinyStream):
    """Every task shows the samples of the first under labels of its own."""

    def _split(self, k: int, first: int, last: int) -> Data:
        index = torch.cat([torch.arange(c * self._total + first, c * self._total + last) for c in (0, 1)])
        return Data(self._x, index, torch.tensor(self.info.task_classes[k]).repeat_interleave(last - first), k)


def test_what_a_head_forgot_is_won_back_where_the_task_is_told() -> None:
    """Only the rows of the first head are exchanged; one head for all would mix up the two tasks and find .5."""
    stream, look = Same("task", tasks=2), probes.Probes(None)
    running = tiny_engine(Strategy, stream, epochs=15)
    running.measures = [look]
    running.evaluate_row(0)
    running.run_task(0)
    running.begin(1)
    running.train()
    running.end()
    head = running.strategy.learner.head
    with torch.no_grad():
        head.weight[:2], head.bias[:2] = head.weight[[1, 0]], head.bias[[1, 0]]
    running.evaluate_row(2)
    running.close()
    found = look.result()
    assert running.record.accuracy[2, 0] < 0.1
    assert found["probe_all"].values[1, 0] < 0.8
    assert found["recovered_by_new_head"].values[0] == pytest.approx(1, abs=0.05)


def test_savings_relearn_in_training_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch statistics follow, dropout draws anew at every step, and every look is in evaluation mode."""
    looks: list[tuple[bool, int]] = []

    def look(strategy: Strategy, *_: Any) -> float:
        norm = next(m for m in strategy.learner.modules() if isinstance(m, nn.BatchNorm1d))
        looks.append((norm.training, int(norm.num_batches_tracked)))
        return 0.0

    monkeypatch.setattr(savings, "_accuracy", look)
    masks: list[Tensor] = []
    draw = dropout.uniform

    def drawn(*arguments: Any) -> Tensor:
        masks.append(draw(*arguments))
        return masks[-1]

    stream = TinyStream("task", tasks=2)
    running = tiny_engine(
        Strategy, stream, lambda info: MLP(info.input_shape, 4, hidden=(16,), norm="batch", dropout=0.5), epochs=1
    )
    measure = savings.Savings(steps=4, batch_size=16)
    running.evaluate_row(0)
    measure.start(running.strategy, stream)
    running.run_task(0)
    trained = running.record.task_steps[0]
    monkeypatch.setattr(dropout, "uniform", drawn)
    running.strategy.eval()
    measure.after_task(1, running.strategy, stream)
    assert [training for training, _ in looks] == [False] * 6
    assert [steps for _, steps in looks] == [0, 2, 4, trained, trained + 2, trained + 4]
    fresh, again = masks[:4], masks[4:]
    assert all(map(torch.equal, fresh, again))
    assert not any(torch.equal(fresh[0], later) for later in fresh[1:])
