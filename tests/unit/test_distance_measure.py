"""The measure of memory over distance in a run: what it records is what the functions give, and it can be resumed."""

import io

import numpy as np
import pytest
import torch

from cl import objectives
from cl.cli.main import main
from cl.distance import attention, gates, gradients
from cl.distance.measure import Distance
from cl.engine import Engine
from cl.errors import ConfigError
from cl.evaluator import EvaluationOptions
from cl.learners.base import stream_facts
from cl.learners.dnc import DNC
from cl.learners.hybrid import Hybrid
from cl.learners.mlp import MLP
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU, LSTM
from cl.learners.transformer import Transformer
from cl.seeding import generator, seeded
from cl.strategy import Strategy
from cl.streams.base import Stream, StreamInfo, Task
from cl.streams.data import Data
from cl.streams.sequences import Adding, AssociativeRecall, Copy, GeneratedStream, KeyValueRecall, RepeatCopy, Series
from cl.testing import TinyStream
from cl.testing.tiny import adam
from cl.training import TrainingOptions
from strategies.separate import Separate
from strategies.xdg import XdG

T = 8


class Cue(Stream):
    """A bit is shown somewhere, noise follows; task 1 asks for its opposite. The distance is from bit to end."""

    def __init__(self):
        self.info = StreamInfo("domain", 2, 2, ((0, 1), (0, 1)), (T, 2), 0, True, sequence=True)
        self.class_names = (("0", "1"),) * 2

    @property
    def counts(self):
        return "steps from bit to end"

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
    assert recall["axes"] == ["after task", "task", "steps from bit to end"]
    assert recall["names"]["steps from bit to end"] == ["1", "3", "20"]
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
    units = {name: found[name]["unit"] for name in ("recall_half_life", "retention_time", "state_drift")}
    assert units == {"recall_half_life": "steps from bit to end", "retention_time": "steps", "state_drift": "fraction"}
    assert found["gradient_by_distance"]["unit"] != "steps"
    learner, x = made.strategy.learner.eval(), made.stream.test(1).storage
    probes = made.measures[0].test(made.stream, 1)
    x = probes.storage[probes.index][:6]
    np.testing.assert_allclose(
        found["gradient_by_distance"]["values"][2], gradients.input_jacobians(learner, x).mean(0), rtol=1e-4
    )
    np.testing.assert_allclose(found["retention_time"]["values"][2, 0], gates.retention_times(learner, x)[0], rtol=1e-4)
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
        Distance().check(Strategy(learner, stream.info))


SMALL = {"samples": 20, "test_samples": 12}


def look(strategy, stream, **options):
    """Return what the measure sees of a strategy as it is."""
    measure = Distance(**{"samples": 40, "probes": 6, **options})
    measure.start(strategy.eval(), stream)
    return measure.result()


def network(make, stream, **fields):
    with seeded(0, "learner"):
        return make(**stream_facts(make, stream.info), **fields)


class Copier(Strategy):
    """Copies perfectly over delays up to `reach`, and says "blank" beyond."""

    reach = 20

    def predict(self, x, task=None):
        items = 4
        go = int(x[0, :, 8].argmax())
        said = torch.zeros(x.shape[:2], dtype=torch.long)
        if go - items + 1 <= self.reach:
            said[:, go + 1 : go + 1 + items] = x[:, :items, :8].argmax(2) + 1
        return torch.nn.functional.one_hot(said, 9).float()


@pytest.mark.parametrize("blanks", [True, False])
def test_half_life_of_copying_is_where_copying_ends(blanks):
    stream = GeneratedStream([Copy(4, 10, blanks=blanks)], **SMALL)
    made = Copier(network(GRU, stream, hidden=4), stream.info)
    found = look(made, stream, distances=[1, 10, 19, 20, 21, 100])
    assert found["recall_by_distance"].values[0, 0].tolist() == [1, 1, 1, 1, 0, 0]
    assert found["recall_by_distance"].axes[2] == "steps from the last item to the go signal"
    assert 20 < found["recall_half_life"].values[0, 0, 0] < 21
    made.reach = 0  # nothing but blanks, which are most of what the stream itself asks for
    found = look(made, stream)
    assert not found["recall_by_distance"].values.any()
    assert np.isnan(found["recall_half_life"].values).all()


class Constant(Strategy):
    """Always answers 1."""

    def predict(self, x, task=None):
        return torch.ones(len(x), 1)


def test_a_constant_answer_recalls_nothing():
    stream = GeneratedStream([Adding(20)], **SMALL)
    found = look(Constant(network(GRU, stream, hidden=4), stream.info), stream, samples=500)
    recall = found["recall_by_distance"].values[0, 0]
    assert np.isnan(recall[0])  # no sum of two numbers in one step
    assert recall[1:].min() > 0
    assert np.isnan(found["recall_half_life"].values).all()


def test_the_guess_is_the_best_constant():
    """Sums of two numbers in [0, 1): the density at 1 is 1, so that .0784 of them are within .04 of it."""
    sums = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)).sum(1, keepdim=True)
    found = objectives.Score("real", None, (0,)).chance(sums)
    assert float(((sums - 1).abs() < 0.04).float().mean()) <= found < 0.0784 + 0.012
    asked = torch.tensor([[-100, 3, 1], [-100, 1, 3]])
    assert objectives.Score("steps", None, range(9)).chance(asked) == 0.5


@pytest.mark.parametrize("problem", [Series(), RepeatCopy(), AssociativeRecall()])
def test_problems_without_a_distance_are_looked_at_without_recall(problem):
    stream = GeneratedStream([problem], **SMALL)
    found = look(Strategy(network(GRU, stream, hidden=4), stream.info), stream)
    assert {"gradient_by_distance", "retention_time"} <= set(found)
    assert "recall_by_distance" not in found


@pytest.mark.parametrize(
    ("make", "fields", "name", "shape"),
    [
        (Transformer, {"width": 8, "reading": "attention"}, "attention_by_distance", (1, 3, 4, 21)),
        (Hybrid, {"body": "gru", "hidden": 8, "layers": 2}, "retention_time", (1, 2, 8)),
        (Hybrid, {"body": "transformer", "hidden": 8, "layers": 2}, "attention_by_distance", (1, 2, 4, 21)),
        (NTM, {"hidden": 6, "slots": 8, "slot_size": 4}, "address_sharpness", (1, 2)),
        (DNC, {"hidden": 6, "slots": 8, "slot_size": 4}, "slots_used", (1,)),
    ],
)
def test_what_each_kind_of_network_shows(make, fields, name, shape):
    stream = GeneratedStream([KeyValueRecall((1, 5))], **SMALL)
    found = look(Strategy(network(make, stream, **fields), stream.info), stream, distances=[1, 30])
    assert found[name].values.shape == shape
    if fields.get("reading") == "attention":
        read_out = found[name].values[0, 2]
        np.testing.assert_allclose(read_out[0, 0], 1 / 21, atol=0.02)  # an untrained one looks everywhere alike
        assert np.isnan(read_out[1:]).all()  # one head beside the four of a block


def test_jacobians_of_the_states_where_they_are_asked_for():
    stream = GeneratedStream([KeyValueRecall((1, 5))], **SMALL)
    made = Strategy(network(LSTM, stream, hidden=4, layers=2), stream.info)
    found = look(made, stream, states=True)
    assert found["state_gradient_by_distance"].values.shape == (1, 2, 22)
    np.testing.assert_allclose(found["state_gradient_by_distance"].values[:, :, 0], 1)
    assert (found["state_timescale"].values > 0).all()
    assert "state_timescale" not in look(made, stream)
    tree = Strategy(network(Transformer, stream, width=8), stream.info)
    assert "state_timescale" not in look(tree, stream, states=True)


def test_gates_of_the_strategy_are_in_force_and_each_task_has_its_network():
    stream = GeneratedStream([KeyValueRecall((1, 5))], 2, "task", **SMALL)
    gated = XdG(network(GRU, stream, hidden=8), stream.info, share=0.5).eval()
    x = stream.test(0).batch(torch.arange(6), torch.zeros((), dtype=torch.long), augment=False).x
    measure = Distance(samples=10, probes=6, distances=[1])
    measure._subset = lambda data, *_: data
    measure.start(gated, stream)
    seen = measure.result()["gradient_by_distance"].values[0]
    expected = gradients.input_jacobians(gated.learner, x, gated.gates(0)).mean(0)
    np.testing.assert_allclose(seen, expected, rtol=1e-4)
    assert np.abs(seen - gradients.input_jacobians(gated.learner, x).mean(0).numpy()).max() > 1e-3
    own = Separate(network(GRU, stream, hidden=8), stream.info).eval()
    measure.start(own, stream)
    measure.after_task(0, own, stream)
    own.grow(1)
    measure.after_task(1, own.eval(), stream)
    drift = measure.result()["state_drift"].values
    assert (drift[1] == 0).all()  # the network of task 0 is as it was


def test_a_strategy_that_says_no_network_is_asked_for_recall_alone(caplog):
    stream = GeneratedStream([Copy(4, 10)], **SMALL)
    found = look(Copier(network(GRU, stream, hidden=4), stream.info), stream)
    assert set(found) == {"recall_by_distance", "recall_half_life"}
    assert "Copier answers with more than its learner: Distance leaves out" in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"distances": []}, {"distances": [3, 2]}, {"probes": 0}, {"samples": -1}, {"states": 1}]
)
def test_impossible_numbers(wrong):
    with pytest.raises(ConfigError, match=rf"measures\.distance\.{next(iter(wrong))}"):
        Distance(**wrong)


def test_a_learner_that_reads_no_sequences_is_refused_before_the_run(tmp_path, capsys):
    assert main(["train", "measures=distance", f"output={tmp_path / 'none'}"]) == 2
    assert capsys.readouterr().err.startswith("error: Expected `learner` that reads sequences")
    assert not (tmp_path / "none").exists()
