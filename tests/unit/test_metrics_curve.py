"""Metrics of the within-task curve against hand-worked numbers and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cl.errors import ConfigError
from cl.metrics import base, curve

NAN = np.nan
STEP = np.arange(5, 61, 5)
TASK = np.repeat([0, 1, 2], 4)
STEPS = np.array([20, 20, 20])
# One replica, three tasks, a point every 5 steps.
POINTS = np.array(
    [
        [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8],
        [NAN, NAN, NAN, NAN, 0.4, 0.6, 0.8, 0.8, 0.5, 0.5, 0.6, 0.7],
        [NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0.2, 0.6, 0.8, 1.0],
    ]
).T[None]


def test_hand_worked() -> None:
    # Lowest after being trained: task 0 at .6, task 1 at .5.
    np.testing.assert_allclose(curve.min_accuracy(TASK, POINTS, STEPS), [0.55])
    np.testing.assert_allclose(curve.worst_case_accuracy(TASK, POINTS, STEPS), [1.0 / 3 + 2 / 3 * 0.55])
    # Switch to task 1: .9 -> .6; to task 2: task 0 .8 -> .8, task 1 .8 -> .5.
    np.testing.assert_allclose(curve.drop_at_switch(TASK, POINTS), [[NAN, 0.3, 0.15]])
    # Won back: min(.9, .8) - .6; (min(.8, .8) - .8 + min(.8, .7) - .5) / 2.
    np.testing.assert_allclose(curve.stability_gap(TASK, POINTS), [[NAN, 0.2, 0.1]])
    # Back at .9 after 15 steps; at the second switch task 0 never left (0 steps) and task 1 never came back.
    np.testing.assert_allclose(curve.recovery_time(STEP, TASK, POINTS, STEPS), [[NAN, 15.0, NAN]])
    # With a tolerance of .11, task 1 is back at .7 after 20 steps: (0 + 20) / 2.
    np.testing.assert_allclose(curve.recovery_time(STEP, TASK, POINTS, STEPS, tolerance=0.11), [[NAN, 15.0, 10.0]])


def test_recovery_begins_at_the_lowest_point() -> None:
    """A point at the start of a task that is still as good as before it is no recovery from what comes after it."""
    points = np.array([[0.9, 0.9, 0.9, 0.5, 0.7, 0.9]]).T[None].repeat(2, axis=2)
    points[0, :2, 1] = NAN
    step, task = np.arange(10, 70, 10), np.array([0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(curve.recovery_time(step, task, points, np.array([20, 40])), [[NAN, 40.0]])


def test_area_under_the_curve_weighs_points_by_their_steps() -> None:
    step, values = np.array([10, 20, 60]), np.array([[[0.1], [0.4], [0.9]]])
    np.testing.assert_allclose(curve.area_under_online_curve(step, values), [(0.1 * 10 + 0.4 * 10 + 0.9 * 40) / 60])


def test_learning_curve_area_is_the_papers_where_every_step_is_measured() -> None:
    rng = np.random.default_rng(0)
    task, step = np.repeat([0, 1], 12), np.arange(1, 25)
    points, accuracy = rng.random((2, 24, 2)), rng.random((2, 3, 2))
    found = curve.learning_curve_area(accuracy, step, task, points, np.array([12, 12]), beta=10)
    for s in range(2):
        z = [np.mean([accuracy[s, 0, 0], accuracy[s, 1, 1]])]
        z += [np.mean([points[s, b, 0], points[s, 12 + b, 1]]) for b in range(10)]
        assert found[s] == pytest.approx(sum(z) / 11)


@st.composite
def curves(draw: st.DrawFn) -> np.ndarray:
    """Draw (S, 12, 3) curves with the tasks not yet met left out."""
    s = draw(st.integers(1, 3))
    values = draw(hnp.arrays(np.int64, (s, 12, 3), elements=st.integers(0, 8))) / 8
    return np.where(np.arange(3) <= TASK[:, None], values, np.nan)


@settings(deadline=None, max_examples=60)
@given(curves())
def test_laws(points: np.ndarray) -> None:
    points.setflags(write=False)
    lowest, worst = (metric(TASK, points, STEPS) for metric in (curve.min_accuracy, curve.worst_case_accuracy))
    assert (lowest <= points[:, -1, :2].mean(1) + 1e-12).all()
    assert (worst <= points[:, -1].mean(1) + 1e-12).all()  # WC-ACC never exceeds the average accuracy
    drop, gap = curve.drop_at_switch(TASK, points), curve.stability_gap(TASK, points)
    assert (gap[:, 1:] >= 0).all()
    assert np.isnan(drop[:, 0]).all()
    times = curve.recovery_time(STEP, TASK, points, STEPS)[:, 1:]
    assert ((times >= 0) & (times <= 20) | np.isnan(times)).all()
    never_below = (points[:, 4:8, 0] >= points[:, 3:4, 0]).all(1)
    assert ((times[:, 0] == 0) == never_below).all()
    area = curve.area_under_online_curve(STEP, points)
    np.testing.assert_allclose(area, np.nanmean(points, axis=2).mean(1), atol=1e-12)


def test_a_run_cut_in_its_second_task_and_a_curve_of_the_first_task_only() -> None:
    cut = slice(0, 6)
    np.testing.assert_allclose(curve.min_accuracy(TASK[cut], POINTS[:, cut], STEPS[:1]), [0.6])
    np.testing.assert_allclose(curve.recovery_time(STEP[cut], TASK[cut], POINTS[:, cut], STEPS[:1]), [[NAN, NAN, NAN]])
    first = POINTS.copy()
    first[:, :, 1:] = np.nan
    np.testing.assert_allclose(curve.min_accuracy(TASK, first, STEPS), [0.6])
    np.testing.assert_allclose(curve.stability_gap(TASK, first), [[NAN, 0.2, 0.0]], atol=1e-12)
    assert np.isnan(curve.worst_case_accuracy(TASK, first, STEPS)).all()


def test_a_task_without_points_is_left_out_and_the_last_one_is_not_known() -> None:
    """A task may take fewer steps than lie between two points."""
    kept = TASK != 1
    step, task, points = STEP[kept], TASK[kept], POINTS[:, kept]
    np.testing.assert_allclose(curve.recovery_time(step, task, points, STEPS, tolerance=0.11), [[NAN, NAN, 0.0]])
    np.testing.assert_allclose(curve.drop_at_switch(task, points), [[NAN, NAN, 0.1]])
    accuracy = np.full((1, 4, 3), 0.1)
    first, third = np.interp(range(11), [0, 5, 10], [0.1, 0.5, 0.8]), np.interp(range(11), [0, 5, 10], [0.1, 0.2, 0.6])
    found = curve.learning_curve_area(accuracy, step, task, points, STEPS)
    np.testing.assert_allclose(found, [np.mean([first.mean(), third.mean()])])
    kept = TASK != 2
    assert np.isnan(curve.min_accuracy(TASK[kept], POINTS[:, kept], STEPS)).all()
    assert np.isnan(curve.worst_case_accuracy(TASK[kept], POINTS[:, kept], STEPS)).all()
    np.testing.assert_allclose(curve.worst_case_accuracy(TASK[kept], POINTS[:, kept], STEPS[:2]), [0.7])


def test_no_points_is_nan_and_one_task_has_no_switch() -> None:
    none = np.zeros(0, np.int64)
    assert np.isnan(curve.min_accuracy(none, np.zeros((2, 0, 3)), none)).all()
    assert np.isnan(curve.area_under_online_curve(none, np.zeros((2, 0, 3)))).all()
    assert np.isnan(curve.stability_gap(TASK[:4], POINTS[:, :4])).all()
    assert curve.worst_case_accuracy(TASK[:4], POINTS[:, :4], STEPS[:1]).tolist() == [0.9]


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="Expected `tolerance` >= 0, got -1"):
        curve.recovery_time(STEP, TASK, POINTS, STEPS, tolerance=-1)
    with pytest.raises(ConfigError, match="Expected `beta` >= 0, got -1"):
        curve.learning_curve_area(np.zeros((1, 4, 3)), STEP, TASK, POINTS, STEPS, beta=-1)


def test_every_metric_states_its_facts() -> None:
    for name, metric in base.discover().items():
        assert metric.name == name
        assert metric.meaning.endswith(".")
        assert any(character.isdigit() for character in metric.source) or "de Ven" in metric.source
        assert ">>>" in (metric.__doc__ or ""), name
