"""Forgetting-curve fits recover curves that are known, and tell them apart."""

import numpy as np
import pytest

from cl.statistics.retention import exponential, fit, half_life, power_law, retention

STEPS = np.arange(50.0, 2001.0, 50.0)


def noisy(values: np.ndarray, seeds: int, deviation: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return values + deviation * rng.standard_normal((seeds, len(values)))


def test_exponential_is_recognised() -> None:
    found = fit(STEPS, noisy(exponential(STEPS, 0.25, 400.0), 5, 0.01))
    assert found is not None
    assert found.curve == "exponential"
    assert found.advantage > 4
    np.testing.assert_allclose(found.parameters, [0.25, 400.0], rtol=0.05)
    true = 400 * np.log(0.75 / 0.25)
    assert found.low < true < found.high
    assert found.high / found.low < 1.2


def test_power_law_is_recognised() -> None:
    found = fit(STEPS, noisy(power_law(STEPS, 60.0, 0.4), 5, 0.01))
    assert found is not None
    assert found.curve == "power law"
    assert found.advantage > 4
    true = 60 * (2 ** (1 / 0.4) - 1)
    assert found.half_life == pytest.approx(true, rel=0.1)
    np.testing.assert_allclose(found(np.array([found.half_life])), 0.5, atol=1e-6)


def test_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    t = np.arange(100.0, 1001.0, 100.0)
    true, hits = 300 * np.log(0.8 / 0.3), []
    for _ in range(40):
        values = exponential(t, 0.2, 300.0) * (1 + 0.05 * rng.standard_normal((4, 1))) + 0.02 * rng.standard_normal(
            (4, 10)
        )
        found = fit(t, values)
        assert found is not None
        hits.append(found.low <= true <= found.high if found.curve == "exponential" else True)
    assert np.mean(hits) > 0.8


def test_what_never_falls_to_half_has_no_half_life() -> None:
    found = fit(STEPS, noisy(exponential(STEPS, 0.8, 300.0), 3, 0.002))
    assert found is not None
    assert found.half_life == np.inf
    assert np.isnan(found.low)
    assert half_life("exponential", (0.0, 10.0)) == pytest.approx(10 * np.log(2))


@pytest.mark.parametrize("level", [1.0, 1.03])
def test_nothing_forgotten_is_no_curve(level: float) -> None:
    """Also where tasks gain a little."""
    found = fit(STEPS, noisy(np.full(len(STEPS), level), 3, 0.01))
    assert found is not None
    assert (found.curve, found.half_life, found.parameters) == ("none", np.inf, ())
    np.testing.assert_array_equal(found(STEPS), 1)
    n = 3 * len(STEPS)
    squares = ((noisy(np.full(len(STEPS), level), 3, 0.01) - 1) ** 2).sum()
    assert found.aic == pytest.approx(n * np.log(squares / n) + 2 + 4 / (n - 2))


def test_a_little_forgotten_is_a_curve() -> None:
    kept = noisy(exponential(STEPS, 0.98, 300.0), 3, 0.01)
    found = fit(STEPS, kept)
    assert found is not None
    assert found.curve != "none"
    n, squares = kept.size, ((kept - 1) ** 2).sum()
    assert found.advantage <= n * np.log(squares / n) + 2 + 4 / (n - 2) - found.aic


def test_too_few_points_give_no_fit() -> None:
    assert fit(np.array([1.0, 2.0]), np.ones((3, 2))) is None
    assert fit(np.array([1.0, 2.0, 3.0]), np.full((1, 3), np.nan)) is None


def test_retention_of_uneven_tasks() -> None:
    accuracy = np.array([[[0.5, 0.5, 0.5], [0.8, 0.5, 0.5], [0.4, 0.9, 0.5], [0.2, 0.45, 0.9]]])
    t, kept = retention(accuracy, np.array([5, 10, 20]))
    np.testing.assert_array_equal(t, [10, 30, 20])
    np.testing.assert_allclose(kept, [[0.5, 0.25, 0.5]])
    t, kept = retention(np.where(accuracy == 0.8, 0.05, accuracy), np.array([5, 10, 0]))
    np.testing.assert_array_equal(t, [10])  # after the third task no step had passed since the second
    assert np.isnan(kept).all()


def test_too_few_points_are_not_told_apart() -> None:
    """With four the corrected criterion of both curves is infinite, and the first one won."""
    few = np.array([100.0, 200.0, 400.0, 800.0])
    assert fit(few, power_law(few, 60.0, 0.4)[None]) is None
    five = np.append(few, 1600.0)
    found = fit(five, power_law(five, 60.0, 0.4)[None])
    assert found is not None
    assert found.curve == "power law"
    assert found.advantage > 4


def test_an_interval_needs_points_without_each_replica() -> None:
    kept = np.full((3, len(STEPS)), np.nan)
    kept[1] = exponential(STEPS, 0.25, 400.0)
    found = fit(STEPS, kept)
    assert found is not None
    assert found.half_life == pytest.approx(400 * np.log(3), rel=1e-3)
    assert np.isnan([found.low, found.high]).all()
