"""Measures that need the network, against numpy, scikit-learn and numbers worked by hand."""

import io
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss
from torch import nn

from cl import objectives
from cl.build import construct, locate
from cl.cli.compose import compose
from cl.engine import Engine
from cl.errors import ConfigError
from cl.evaluator import EvaluationOptions
from cl.learners.cnn import CNN
from cl.learners.mlp import MLP
from cl.learners.recurrent import GRU
from cl.measures import drift, events, interference, plasticity, predictions, probes, savings
from cl.measures.base import Measure, activations
from cl.results import Results
from cl.seeding import seeded
from cl.strategy import Network, Strategy
from cl.streams.data import Data
from cl.testing import TinyStream
from cl.testing.tiny import adam, state
from cl.training import TrainingOptions

MAKERS = {
    "predictions": predictions.Predictions,
    "weight_drift": drift.WeightDrift,
    "feature_drift": drift.FeatureDrift,
    "events": events.ForgettingEvents,
    "probes": probes.Probes,
    "plasticity": plasticity.Plasticity,
    "interference": interference.Interference,
    "savings": lambda: savings.Savings(steps=6, batch_size=16),
}


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "weight_drift"])
def test_a_mistake_is_named_as_it_is_typed(name: str) -> None:
    node = compose([f"measures={name}", f"measures.{name}.samples=0"])["measures"]
    with pytest.raises(ConfigError, match=rf"`measures\.{name}\.samples` > 0"):
        construct(node, "measures")


def engine(
    measures: list[Measure],
    scenario: str = "class",
    epochs: int = 8,
    make: type[Strategy] = Strategy,
    **options: Any,
) -> Engine:
    stream = TinyStream(scenario)
    with seeded(0, "learner"):
        learner = MLP(stream.info.input_shape, stream.info.n_classes, hidden=(16, 12))
    training = TrainingOptions(epochs=epochs, batch_size=16)
    strategy = make(learner, stream.info)
    return Engine(strategy, stream, adam, training, EvaluationOptions(), measures=measures, **options)


def strategy_class(name: str) -> Any:
    return locate(compose([f"strategy={name}"])["strategy"]["_target_"], "strategy._target_")


def values(results: Results, name: str) -> np.ndarray:
    return np.asarray(results.measures[name]["values"])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scenario", ["task", "domain", "class", "online"])
def test_looking_changes_nothing(name: str, scenario: str) -> None:
    plain = engine([], scenario, epochs=2)
    watched = engine([MAKERS[name]()], scenario, epochs=2)
    before = torch.get_rng_state()
    one, two = plain.run(), watched.run()
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(one.accuracy, two.accuracy)
    np.testing.assert_array_equal(one.train_loss, two.train_loss)
    for key, tensor in state(plain.strategy).items():
        assert torch.equal(tensor, state(watched.strategy)[key]), key


@pytest.mark.parametrize("name", MAKERS)
def test_resumed_run_measures_the_same(name: str) -> None:
    saved: list[bytes] = []

    def save(running: Engine) -> None:
        file = io.BytesIO()
        torch.save(running.state_dict(), file)
        saved.append(file.getvalue())

    whole = engine([MAKERS[name]()], epochs=2, pause=save).run()
    for content in saved[:-1:3]:
        resumed = engine([MAKERS[name]()], epochs=2)
        resumed.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
        found = resumed.run()
        assert found.measures.keys() == whole.measures.keys()
        for quantity in whole.measures:
            np.testing.assert_array_equal(values(found, quantity), values(whole, quantity))


@pytest.mark.parametrize("name", MAKERS)
def test_quantities_explain_themselves_and_are_kept_on_disk(name: str, tmp_path: Any) -> None:
    results = engine([MAKERS[name]()], epochs=2).run()
    results.save(tmp_path)
    read = Results.load(tmp_path)
    assert read.measures
    for quantity, facts in read.measures.items():
        found = np.asarray(facts["values"])
        np.testing.assert_array_equal(found, values(results, quantity))
        assert found.ndim == len(facts["axes"])
        assert facts["better"] in ("higher", "lower", "")
        assert facts["meaning"].endswith(".")
        for axis, names in facts["names"].items():
            assert len(names) == found.shape[facts["axes"].index(axis)]


def test_groups_of_the_configuration() -> None:
    full = construct(compose(["measures=full"])["measures"], "measures")
    assert {type(m) for m in full.values()} == {m if isinstance(m, type) else savings.Savings for m in MAKERS.values()}
    assert all(type(m).cost for m in full.values())
    chosen = construct(compose(["measures=[probes,events]"])["measures"], "measures")
    assert sorted(chosen) == ["events", "probes"]
    assert compose(["measures=none"])["measures"] == {}


@pytest.mark.parametrize("guessed", [True, False])
def test_calibration(guessed: bool) -> None:
    """Of labels drawn at random every bin is too sure; of labels drawn from the model some are, and some are not."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, 4)) * 2
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = rng.integers(0, 4, 500) if guessed else np.array([rng.choice(4, p=row) for row in p])
    found = predictions.negative_log_likelihood(torch.tensor(scores), torch.tensor(labels))
    assert found == pytest.approx(log_loss(labels, p))
    confidence, right = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert predictions.expected_calibration_error(torch.tensor(scores), torch.tensor(labels)) == pytest.approx(expected)


def test_confusions() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    found = predictions.confusions(torch.tensor(predicted), torch.tensor(labels), 5)
    np.testing.assert_array_equal(found, confusion_matrix(labels, predicted))


def test_fine_tuning_takes_old_classes_for_new_ones() -> None:
    results = engine([predictions.Predictions(None)], epochs=20).run()
    confusion = values(results, "task_confusion")
    np.testing.assert_allclose(confusion[2].sum(1), 1)
    assert confusion[2, 0, 2] > 0.8  # nearly all of task 1 is taken for task 3
    assert values(results, "new_class_bias")[2] > 0
    by_class = values(results, "class_accuracy")
    np.testing.assert_allclose(by_class[:, :2].mean(1), results.accuracy[0, 1:, 0])
    np.testing.assert_allclose(values(results, "nll")[2], results.loss[0, 3], rtol=1e-5)


def test_bias_compares_new_classes_to_earlier_ones_alone() -> None:
    """By hand: (4 - 3 + 1 - 2) / 2; the classes of a task to come score highest and do not count."""
    scores = torch.tensor([[3.0, 0.0, 1.0, 4.0, 9.0, 9.0], [0.0, 2.0, 1.0, 0.0, 9.0, 9.0]])
    assert predictions.new_class_bias(scores, torch.tensor([0, 0, 1, 1, 2, 2]), 1) == 0.0


def test_accuracy_of_classes_and_bias_after_the_last_task() -> None:
    made = engine([predictions.Predictions(None)], epochs=3)
    results = made.run()
    tests = [next(made.stream.test(k).in_order(99)) for k in range(3)]
    with torch.no_grad():
        scores = torch.cat([made.strategy.eval().predict(b.x) for b in tests]).double().numpy()
    y = torch.cat([b.y for b in tests]).numpy()
    found = [np.mean(scores[y == c].argmax(1) == c) for c in range(6)]
    np.testing.assert_allclose(values(results, "class_accuracy")[2], found)
    old = scores[y < 4]
    bias = (old[:, 4:].max(1) - old[:, :4].max(1)).mean()
    np.testing.assert_allclose(values(results, "new_class_bias")[2], bias, rtol=1e-6)
    confused = confusion_matrix(y, scores.argmax(1), labels=range(6))
    np.testing.assert_array_equal(values(results, "confusion"), confused)


def test_cka_by_gram_matrices() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 5))
    centre = np.eye(40) - 1 / 40

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(centre @ a @ a.T @ centre @ centre @ b @ b.T @ centre))

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert drift.cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected)
    turned = x @ np.linalg.qr(rng.normal(size=(7, 7)))[0] * 3 + 2
    assert drift.cka(torch.tensor(x), torch.tensor(turned)) == pytest.approx(1)


def test_weight_drift() -> None:
    measure = drift.WeightDrift()
    running = engine([measure])
    first = state(running.strategy.learner)
    results = running.run()
    last = state(running.strategy.learner)
    names = results.measures["weight_drift_total"]["names"]["parameter"]
    expected = [float((last[n] - first[n]).norm() / first[n].norm()) for n in names]
    np.testing.assert_allclose(values(results, "weight_drift_total")[-1], expected, rtol=1e-5)
    np.testing.assert_allclose(values(results, "weight_drift_total")[0], values(results, "weight_drift")[0])


@pytest.mark.parametrize("name", ["separate", "scratch", "warm_start"])
def test_weight_drift_of_a_network_of_a_tasks_own_counts_from_its_own_start(name: str) -> None:
    """A copy goes on from the network before it, whose first weights stay its initial ones; a new one begins anew."""
    starts: list[dict[str, torch.Tensor]] = []
    ends: list[dict[str, torch.Tensor]] = []

    class Noting(strategy_class(name)):  # type: ignore[misc]
        def begin_task(self, task: Any) -> None:
            starts.append(state(self.learner))

        def end_task(self, task: Any) -> None:
            ends.append(state(self.learner))

    results = engine([drift.WeightDrift()], "task", epochs=2, make=Noting).run()
    names = results.measures["weight_drift"]["names"]["parameter"]
    initials = starts[:1] * 3 if name == "warm_start" else starts
    for kind, initial in (("weight_drift", starts), ("weight_drift_total", initials)):
        expected = [
            [float((end[n] - start[n]).norm() / start[n].norm()) for n in names]
            for start, end in zip(initial, ends, strict=True)
        ]
        np.testing.assert_allclose(values(results, kind), expected, rtol=1e-5)


def test_dormant_units_and_rank() -> None:
    a = np.abs(np.random.default_rng(5).normal(size=(30, 6)))
    a[:, 1] = 0
    a[:, 2] *= 0.01
    score = a.mean(0) / a.mean(0).mean()
    assert plasticity.dormant(torch.tensor(a), 0.025) == pytest.approx((score <= 0.025).mean()) == pytest.approx(2 / 6)
    assert plasticity.dormant(torch.zeros(4, 3), 0.0) == 1.0
    values_ = np.linalg.svd(a, compute_uv=False)
    p = values_ / values_.sum()
    assert plasticity.effective_rank(torch.tensor(a)) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert plasticity.effective_rank(torch.zeros(4, 3)) == 0.0


def test_plasticity_looks_at_the_task_just_trained() -> None:
    """Channels by the size of their answers, ranks as shares of the width, also where samples are fewer than units."""
    stream, measure = TinyStream("class"), plasticity.Plasticity(samples=5, threshold=0.7)
    with seeded(0, "learner"):
        learner = CNN((1, 4, 4), 6, channels=(8,), hidden=(), activation="tanh")
    options = TrainingOptions(epochs=2, batch_size=16)
    run = Engine(Strategy(learner, stream.info), stream, adam, options, EvaluationOptions(), measures=[measure])
    results = run.run()
    x = next(measure.test(stream, 2).in_order(99)).x
    with torch.no_grad():
        (hidden,) = run.strategy.eval().learner.activations(x)
    hidden = hidden.double().flatten(2)
    size = hidden.abs().mean((0, 2))
    dormant = float((size <= 0.7 * size.mean()).double().mean())
    assert len(x) == 5
    assert 0 < dormant < 1
    assert dormant != plasticity.dormant(hidden.mean(2), 0.7), "signs that change from place to place count"
    assert values(results, "dormant_units")[3, 0] == pytest.approx(dormant)
    rank = plasticity.effective_rank(hidden.mean(2)) / 8
    assert values(results, "effective_rank")[3, 0] == pytest.approx(rank)


def test_gradient_of_a_linear_layer_in_closed_form() -> None:
    stream = TinyStream("domain")
    with seeded(0, "learner"):
        learner = MLP(stream.info.input_shape, 2, hidden=(8,))
    strategy = Strategy(learner, stream.info).eval()
    data = stream[0].train
    found = interference.gradient(strategy, data)
    (batch,) = data.in_order(1000)
    with torch.no_grad():
        hidden = learner.features(batch.x).double().numpy()
        logits = learner(batch.x).double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = p - np.eye(2)[batch.y.numpy()]
    head = nn.utils.parameters_to_vector(learner.head.parameters())
    expected = np.concatenate([(error.T @ hidden / len(error)).ravel(), error.mean(0)])
    np.testing.assert_allclose(found[-len(head) :], expected, rtol=1e-4, atol=1e-7)


def test_interference_is_symmetric_and_one_with_itself() -> None:
    results = engine([interference.Interference(40)], "domain", epochs=3).run()
    for name in ("gradient_cosine", "fisher_overlap"):
        matrix = values(results, name)[2]
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
        np.testing.assert_allclose(np.diagonal(matrix), 1, atol=1e-6)
        assert (np.abs(matrix) <= 1 + 1e-6).all()
    np.testing.assert_allclose(values(results, "fisher_overlap_newest")[2, 2], 1, atol=1e-6)


def test_fisher_overlap_by_hand() -> None:
    a, b = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
    assert interference.overlap(a, b) == pytest.approx(np.sqrt(0.25 * 0.5) + np.sqrt(0.75 * 0.5))
    frechet = 0.5 * ((np.sqrt([0.25, 0.75]) - np.sqrt([0.5, 0.5])) ** 2).sum()
    assert interference.overlap(a, b) == pytest.approx(1 - frechet)


@pytest.mark.parametrize("name", ["frozen", "ncm", "packnet", "progressive", "generative_classifier"])
def test_strategies_that_freeze_or_grow_can_be_looked_at(name: str) -> None:
    config = compose([f"strategy={name}"])["strategy"]
    make = locate(config["_target_"], "strategy._target_")
    stream = TinyStream(next(s for s in ("class", "task") if s in make.scenarios))
    with seeded(0, "learner"):
        learner = MLP(stream.info.input_shape, stream.info.n_classes, hidden=(16, 12))
    with seeded(0, "strategy"):
        strategy = construct({**config, **make.small}, "strategy", learner=learner, info=stream.info)
    measures = [made() for made in MAKERS.values()]
    options = TrainingOptions(epochs=1, batch_size=16)
    results = Engine(strategy, stream, adam, options, EvaluationOptions(), measures=measures).run()
    looked_into = name in ("frozen", "ncm", "packnet")  # by the others' answers, more than the learner speaks
    assert ("probe_all" in results.measures) == looked_into
    assert ("dormant_units" in results.measures) == looked_into
    for quantity in results.measures.values():
        assert not np.isinf(quantity["values"]).any()


@pytest.mark.parametrize("name", ["naive", "xdg", "hat", "separate", "warm_start", "progressive", "packnet"])
def test_the_network_that_is_looked_into_is_the_one_that_answers(name: str) -> None:
    """Where a strategy says which network it asks, that network's outputs are the strategy's."""
    made = engine([], "task", epochs=1, make=Strategy if name == "naive" else strategy_class(name))
    made.run()
    strategy = made.strategy.eval()
    x = made.stream.test(0).storage[:5].float()
    found = 0
    for j in range(3):
        network = strategy.network(j)
        if network is not None:
            found += 1
            expected = objectives.mask_logits(network.learner(x, network.gates), strategy.allowed_at_test(j))
            torch.testing.assert_close(strategy.predict(x, j), expected)
    assert found == {"progressive": 1}.get(name, 3)


@pytest.mark.parametrize("reading", ["last", "mean"])
def test_padding_is_no_part_of_a_representation(reading: str) -> None:
    """A sample among longer ones has the activations that it has alone."""
    net = GRU((9,), 3, hidden=5, layers=2, vocabulary=7, embedding=4, reading=reading).eval()
    x = torch.randint(1, 7, (4, 9), generator=torch.Generator().manual_seed(0))
    x[:, 5:] = 0
    padded, alone = (activations(Network(net), Data(t, torch.arange(4), torch.zeros(4), 0)) for t in (x, x[:, :5]))
    for a, b in zip(padded, alone, strict=True):
        torch.testing.assert_close(a, b)
    for k, threshold in ((0, 0.025), (1, 0.5)):
        assert plasticity.dormant(padded[k], threshold) == plasticity.dormant(alone[k], threshold)


def test_of_separate_networks_nothing_drifts() -> None:
    measures: list[Measure] = [drift.FeatureDrift(), drift.WeightDrift(), interference.Interference(), probes.Probes()]
    results = engine([*measures, MAKERS["savings"]()], "task", epochs=2, make=strategy_class("separate")).run()
    assert np.nanmax(values(results, "feature_drift")) == 0
    probed = values(results, "probe_task")
    np.testing.assert_array_equal(probed[2], np.diagonal(probed))
    assert "gradient_cosine" not in results.measures
    assert "savings" not in results.measures


def test_gated_units_are_silent_in_what_is_seen_of_them() -> None:
    """With 3 of 4 units off in every task, as many are dormant at least."""
    made = engine([plasticity.Plasticity()], "task", epochs=2, make=partial(strategy_class("xdg"), share=0.75))
    assert (values(made.run(), "dormant_units") >= 0.75).all()


def test_a_unit_whose_sign_changes_from_place_to_place_is_not_dormant() -> None:
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1).float()
    net = CNN((1, 16, 16), 2, channels=(2,), hidden=(), activation="tanh")
    with torch.no_grad():
        net.blocks[0][0].weight.zero_()
        net.blocks[0][0].bias.copy_(torch.tensor([0.0, 0.6]))
        net.blocks[0][0].weight[0, 0, 1, 1] = 3.0
    data = Data(board.expand(20, 1, 16, 16), torch.arange(20), torch.zeros(20, dtype=torch.long), 0)
    [mean], [size] = activations(Network(net), data), activations(Network(net), data, size=True)
    np.testing.assert_allclose(size.mean(0), np.tanh([3, 0.6]), rtol=1e-6)
    assert [plasticity.dormant(a, 0.025) for a in (mean, size)] == [0.5, 0.0]
