"""Metrics of the accuracy matrix against hand-worked numbers, plain-Python formulas and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cl.errors import ConfigError
from cl.metrics import base, matrix, reference

MATRIX_METRICS = [m for m in base.discover().values() if m.inputs == ("accuracy",)]

# Two replicas, three tasks. Replica 0 forgets task 0 and improves on task 1; replica 1 is perfect from the start.
HAND = np.array(
    [
        [[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]],
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
    ]
)
HAND_VALUES = {
    "average_accuracy": [2.45 / 3, 1.0],
    "average_incremental_accuracy": [(0.9 + 0.75 + 2.45 / 3) / 3, 1.0],
    "accuracy_drop": [[0.3, -0.05, 0.0], [0.0, 0.0, 0.0]],
    "forgetting": [0.125, 0.0],
    "backward_transfer": [-0.125, 0.0],
    "forward_transfer": [0.1, 0.0],
    "learning_accuracy": [0.9, 1.0],
}


@st.composite
def matrices(draw: st.DrawFn, smallest: int = 1) -> np.ndarray:
    """Draw (S, K+1, K) matrices of accuracies that are exact in binary."""
    s, k = draw(st.integers(1, 3)), draw(st.integers(smallest, 5))
    eighths = hnp.arrays(np.int64, (s, k + 1, k), elements=st.integers(0, 8))
    return draw(eighths) / 8


@pytest.mark.parametrize("metric", MATRIX_METRICS, ids=lambda m: m.name)
def test_hand_worked(metric: base.Metric) -> None:
    np.testing.assert_allclose(metric(HAND), HAND_VALUES[metric.name], atol=1e-12)


def test_forgetting_takes_the_best_before_the_last_row_and_not_the_last() -> None:
    accuracy = np.array([[[0.0, 0.0, 0.0], [0.5, 0.9, 0.0], [0.7, 0.6, 0.0], [0.8, 0.8, 0.9]]])
    # Task 0: max(.5, .7) - .8; task 1: max(.9, .6) - .8, the .9 from before task 1 was trained counts.
    np.testing.assert_allclose(matrix.forgetting(accuracy), [(-0.1 + 0.1) / 2], atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(matrices(smallest=2))
def test_against_plain_loops(accuracy: np.ndarray) -> None:
    for s, rows in enumerate(accuracy.tolist()):
        t = len(rows) - 1
        drops = [max(rows[k][j] for k in range(1, t)) - rows[t][j] for j in range(t - 1)]
        assert matrix.forgetting(accuracy)[s] == pytest.approx(sum(drops) / (t - 1))
        backward = [rows[t][j] - rows[j + 1][j] for j in range(t - 1)]
        assert matrix.backward_transfer(accuracy)[s] == pytest.approx(sum(backward) / (t - 1))
        forward = [rows[j][j] - rows[0][j] for j in range(1, t)]
        masked = all(rows[j][j] == 0 for j in range(1, t))
        expected = float("nan") if masked else sum(forward) / (t - 1)
        assert matrix.forward_transfer(accuracy)[s] == pytest.approx(expected, nan_ok=True)
        averages = [sum(rows[k][:k]) / k for k in range(1, t + 1)]
        assert matrix.average_accuracy_by_task(accuracy)[s].tolist() == pytest.approx(averages)
        assert matrix.average_incremental_accuracy(accuracy)[s] == pytest.approx(sum(averages) / t)


@settings(deadline=None, max_examples=60)
@given(matrices())
def test_laws(accuracy: np.ndarray) -> None:
    accuracy.setflags(write=False)  # a metric that writes to its input raises
    t = accuracy.shape[2]
    values = {m.name: m(accuracy) for m in MATRIX_METRICS}
    assert all(v.shape in {(len(accuracy),), (len(accuracy), t)} for v in values.values())
    if t == 1:
        assert all(np.isnan(values[n]).all() for n in ("forgetting", "backward_transfer", "forward_transfer"))
    else:
        np.testing.assert_allclose(values["backward_transfer"], -values["accuracy_drop"][:, :-1].mean(1), atol=1e-12)
        assert (values["forgetting"] >= -values["backward_transfer"] - 1e-12).all()
        first_tasks = accuracy[:, -1, :-1].mean(1)
        np.testing.assert_allclose(
            values["backward_transfer"],
            first_tasks - accuracy[:, np.arange(1, t), np.arange(t - 1)].mean(1),
            atol=1e-12,
        )
    for name in ("average_accuracy", "learning_accuracy", "average_incremental_accuracy"):
        assert ((values[name] >= 0) & (values[name] <= 1)).all()
    turned = {m.name: m(accuracy[::-1]) for m in MATRIX_METRICS}
    for name, value in values.items():
        np.testing.assert_array_equal(turned[name], value[::-1])


@settings(deadline=None, max_examples=40)
@given(matrices(smallest=2), st.integers(1, 4))
def test_rows_not_reached_change_nothing(accuracy: np.ndarray, stop: int) -> None:
    stop = min(stop, accuracy.shape[2] - 1)
    unfinished = accuracy.copy()
    unfinished[:, stop + 1 :] = np.nan
    short = accuracy[:, : stop + 1, :stop]
    for metric in MATRIX_METRICS:
        found = metric(unfinished)
        if found.ndim == 2:
            assert np.isnan(found[:, stop:]).all()
            found = found[:, :stop]
        np.testing.assert_allclose(found, metric(short), err_msg=metric.name, atol=1e-12)


def test_replicas_that_stopped_at_different_tasks_are_read_each_to_its_own_end() -> None:
    accuracy = HAND.copy()
    accuracy[0, 3] = np.nan
    np.testing.assert_allclose(matrix.average_accuracy(accuracy), [0.75, 1.0])
    np.testing.assert_allclose(matrix.forgetting(accuracy), [0.2, 0.0], atol=1e-12)


def test_nothing_trained_is_nan_everywhere() -> None:
    accuracy = np.full((1, 3, 2), np.nan)
    accuracy[:, 0] = 0.5
    for metric in MATRIX_METRICS:
        assert np.isnan(metric(accuracy)).all(), metric.name


@settings(deadline=None, max_examples=40)
@given(matrices())
def test_reference_metrics_at_the_ends(accuracy: np.ndarray) -> None:
    np.testing.assert_allclose(reference.intransigence(accuracy, accuracy), 0.0, atol=1e-12)
    floor, ceiling = np.zeros_like(accuracy), np.ones_like(accuracy)
    np.testing.assert_allclose(reference.share_of_gap_closed(floor, ceiling, floor), 0.0)
    np.testing.assert_allclose(reference.share_of_gap_closed(ceiling, ceiling, floor), 1.0)
    assert np.isnan(reference.share_of_gap_closed(accuracy, ceiling, ceiling)).all()
    cut = accuracy.copy()
    cut[:, -1] = np.nan  # one of the three got less far: averages over other tasks do not compare
    for unlike in ((cut, ceiling, floor), (accuracy, cut, floor), (accuracy, ceiling, cut)):
        assert np.isnan(reference.share_of_gap_closed(*unlike)).all()
    np.testing.assert_allclose(
        reference.share_of_gap_closed(accuracy, ceiling[:1], floor[:1]), matrix.average_accuracy(accuracy), atol=1e-12
    )


@pytest.mark.parametrize("shape", [(3, 2), (1, 2, 2), (1, 1, 0)])
def test_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"Expected `accuracy` of shape \(S, K\+1, K\), got"):
        matrix.forgetting(np.zeros(shape))
    with pytest.raises(ConfigError, match="Expected `joint`"):
        reference.intransigence(np.zeros((1, 3, 2)), np.zeros(shape))


def test_per_replica_means_over_the_tasks_with_a_value() -> None:
    values = np.array([[math.nan, 0.25, 0.75], [math.nan] * 3])
    np.testing.assert_array_equal(base.per_replica(values), [0.5, math.nan])
    np.testing.assert_array_equal(base.per_replica(values[:, 1]), values[:, 1])
