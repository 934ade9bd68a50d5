"""The measure of memory over distance in a run: what it records is what the functions give, and it can be resumed."""

import io

import numpy as np
import pytest
import torch

from cl.distance import attention, gates, gradients
from cl.distance.measure import Distance
from cl.engine import Engine
from cl.errors import ConfigError
from cl.evaluator import EvaluationOptions
from cl.learners.mlp import MLP
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU
from cl.learners.transformer import Transformer
from cl.seeding import generator, seeded
from cl.strategy import Strategy
from cl.streams.base import Stream, StreamInfo, Task
from cl.streams.data import Data
from cl.testing import TinyStream
from cl.testing.tiny import adam
from cl.training import TrainingOptions

T = 8


class Cue(Stream):
    """A bit is shown somewhere, noise follows; task 1 asks for its opposite. The distance is from bit to end."""

    def __init__(self):
        self.info = StreamInfo("domain", 2, 2, ((0, 1), (0, 1)), (T, 2), 0, True, sequence=True)
        self.class_names = (("0", "1"),) * 2

    def at_distance(self, k, distance, n):
        return self.draw(k, torch.full((n,), distance), f"distance/{distance}")

    def draw(self, k, distance, purpose):
        g = generator(0, purpose, k)
        n, length = len(distance), max(T, int(distance.max()) + 1)
        bit = torch.randint(0, 2, (n,), generator=g)
        x = 0.1 * torch.randn(n, length, 2, generator=g)
        x[torch.arange(n), length - 1 - distance] = torch.stack([2.0 * bit - 1, torch.ones(n)], 1)
        return Data(x, torch.arange(n), bit if k == 0 else 1 - bit, k)

    def mixed(self, k, n, purpose):
        return self.draw(k, torch.randint(0, 4, (n,), generator=generator(0, "lag", k)), purpose)

    def __getitem__(self, k):
        return Task(k, (0, 1), self.mixed(k, 256, "train"), None)

    def test(self, k):
        return self.mixed(k, 40, "test")

    def fingerprint(self):
        return "cue"


def engine(make=GRU, pause=None, **fields):
    stream = Cue()
    with seeded(0, "learner"):
        learner = make((T, 2), 2, **fields)
    measure = Distance(samples=50, probes=6, distances=[1, 3, 20])
    options = TrainingOptions(epochs=10, batch_size=32)
    strategy = Strategy(learner, stream.info)
    return Engine(strategy, stream, adam, options, EvaluationOptions(), measures=[measure], pause=pause)


@pytest.fixture(scope="module")
def finished():
    made = engine(hidden=12)
    return made, made.run().measures


def test_recall_of_a_trained_network(finished):
    made, found = finished
    recall = found["recall_by_distance"]
    assert recall["axes"] == ["after task", "task", "distance"]
    assert recall["names"]["distance"] == ["1", "3", "20"]
    values = recall["values"]
    assert values.shape == (3, 2, 3)
    assert values[1, 0, :2].min() > 0.95  # task 0 is remembered over the distances of training
    assert values[2, 0, :2].max() < 0.1  # and turned around by task 1, which asks for the opposite
    assert values[2, 1, :2].min() > 0.95
    data = made.stream.at_distance(1, 20, 50)
    expected = (made.strategy.predict(data.storage).argmax(1) == data.labels).float().mean()
    assert values[2, 1, 2] == pytest.approx(expected.item())


def test_the_rest_of_what_is_recorded(finished):
    made, found = finished
    learner, x = made.strategy.learner.eval(), made.stream.test(1).storage
    probes = made.measures[0].test(made.stream, 1)
    x = probes.storage[probes.index][:6]
    np.testing.assert_allclose(
        found["gradient_by_distance"]["values"][2], gradients.input_jacobians(learner, x).mean(0), rtol=1e-4
    )
    np.testing.assert_allclose(
        found["retention_time"]["values"][2, 0], gates.retention_times(learner, x)[0], rtol=1e-4
    )
    drift = found["state_drift"]["values"]
    assert drift.shape == (2, 2, T)
    assert (drift[0, 0] == 0).all()
    assert np.isnan(drift[0, 1]).all()
    assert (drift[1, 0] > 0).all()
    assert found["recall_half_life"]["values"].shape == (3, 2, 3)
    assert "attention_by_distance" not in found


def test_of_attention_and_of_memory():
    made = engine(Transformer, width=8)
    weights, _ = attention.attention_weights(made.strategy.learner.eval(), made.measures[0]._inputs(made.stream, 0))
    made.measures[0].start(made.strategy, made.stream)
    found = made.measures[0].result()["attention_by_distance"].values
    np.testing.assert_allclose(found[0, 1], attention.mass_by_distance(weights[1]), rtol=1e-5)
    made = engine(NTM, hidden=6, slots=8, slot_size=4)
    made.measures[0].start(made.strategy, made.stream)
    lag = made.measures[0].result()["reading_lag"].values
    assert lag.shape == (1, T)
    assert lag[0, 1] == pytest.approx(1)


def test_resumed_it_ends_as_the_whole_run(finished):
    files = []

    def save(running):
        file = io.BytesIO()
        torch.save(running.state_dict(), file)
        files.append(file.getvalue())

    engine(hidden=12, pause=save).run()
    middle = files[len(files) // 2 + 1]
    resumed = engine(hidden=12)
    resumed.load_state_dict(torch.load(io.BytesIO(middle), weights_only=True))
    again = resumed.run().measures
    for name, quantity in finished[1].items():
        np.testing.assert_array_equal(again[name]["values"], quantity["values"])


def test_networks_that_read_no_sequences_are_refused_before_training():
    stream = TinyStream("domain")
    learner = MLP(stream.info.input_shape, 2, hidden=(4,))
    with pytest.raises(ConfigError, match="learner"):
        Distance().start(Strategy(learner, stream.info), stream)


@pytest.mark.parametrize("wrong", [{"distances": []}, {"distances": [3, 2]}, {"probes": 0}, {"samples": -1}])
def test_impossible_numbers(wrong):
    with pytest.raises(ConfigError, match=rf"measures\.distance\.{next(iter(wrong))}"):
        Distance(**wrong)
