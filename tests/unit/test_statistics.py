"""Intervals and paired tests against scipy's own, textbook numbers and the meaning of coverage."""

import numpy as np
import pytest
from scipy import stats

from cl.errors import ConfigError
from cl.statistics.intervals import interval
from cl.statistics.paired import compare, holm


def test_t_interval_is_scipys() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    found = interval(values)
    for column in range(3):
        one = stats.ttest_1samp(values[:, column], 0.0).confidence_interval(0.95)
        np.testing.assert_allclose([found.low[column], found.high[column]], [one.low, one.high])


def test_nan_is_left_out_and_one_value_has_no_interval() -> None:
    found = interval(np.array([[1.0, np.nan, 2.0], [3.0, np.nan, np.nan]]))
    np.testing.assert_array_equal(found.mean, [2.0, np.nan, 2.0])
    np.testing.assert_array_equal(found.count, [2, 0, 1])
    assert np.isnan(found.low[1:]).all()
    assert np.isnan(found.high[1:]).all()


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_intervals_cover_the_mean_as_often_as_they_say(method: str) -> None:
    rng = np.random.default_rng(1)
    count = 400 if method == "t" else 60
    hits = [bool(f.low <= 1 <= f.high) for f in (interval(rng.normal(1, 2, 20), method, 0.8) for _ in range(count))]
    low, high = stats.binom.ppf([0.001, 0.999], count, 0.8 if method == "t" else 0.77) / count
    assert low <= np.mean(hits) <= high


def test_bootstrap_repeats_and_a_constant_is_a_point() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.9])
    first, second = interval(values, "bootstrap"), interval(values, "bootstrap")
    assert (float(first.low), float(first.high)) == (float(second.low), float(second.high))
    point = interval(np.full(4, 0.3), "bootstrap")
    assert float(point.low) == float(point.high) == 0.3


def test_unknown_method_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Expected `interval` in .*'t'.*, got 'sd'"):
        interval(np.zeros(3), "sd")


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == [0.06, 0.03, 0.06, 0.02]  # Wikipedia's worked example, times rank
    np.testing.assert_array_equal(holm([0.01, np.nan, 0.5]), [0.02, np.nan, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_are_matched_by_stream_and_seed() -> None:
    a = {("s", 0): 0.9, ("s", 1): 0.8, ("s", 2): 0.7, ("t", 0): 0.5}
    b = {("s", 0): 0.7, ("s", 1): 0.7, ("s", 2): 0.4, ("s", 3): 0.1, ("t", 0): np.nan}
    (pair,) = compare({"a": a, "b": b})
    differences = np.array([0.2, 0.1, 0.3])
    reference = stats.ttest_rel([0.9, 0.8, 0.7], [0.7, 0.7, 0.4])
    assert pair.count == 3
    np.testing.assert_allclose(pair.difference, 0.2)
    np.testing.assert_allclose(pair.p, reference.pvalue)
    np.testing.assert_allclose([pair.low, pair.high], list(reference.confidence_interval()))
    np.testing.assert_allclose(pair.effect, differences.mean() / differences.std(ddof=1))
    assert pair.p_holm == pytest.approx(pair.p)
    assert pair.p_wilcoxon == 0.25  # 2 of the 8 signs of three differences


def test_differences_that_are_equal_up_to_rounding_have_no_spread() -> None:
    a = {("s", i): 0.1 * i for i in range(6)}
    (pair,) = compare({"a": a, "b": {key: value + 0.1 for key, value in a.items()}})
    assert pair.difference == pytest.approx(-0.1)
    assert (pair.p, np.isnan(pair.effect)) == (0.0, True)
    (pair,) = compare({"a": a, "b": {key: (value + 0.1) - 0.1 for key, value in a.items()}})
    assert (pair.difference, pair.p, pair.effect) == (0.0, 1.0, 0.0)
    tiny = [1e-8, 2e-8, 4e-8]  # errors of networks that solve a problem differ all the same
    (pair,) = compare({"a": {("s", i): v for i, v in enumerate(tiny)}, "b": {("s", i): 1e-8 for i in range(3)}})
    assert pair.difference == pytest.approx(4e-8 / 3)


def test_equal_strategies_do_not_differ() -> None:
    same = {("s", i): 0.1 * i for i in range(4)}
    (pair,) = compare({"a": same, "b": dict(same)})
    assert (pair.difference, pair.p, pair.effect) == (0.0, 1.0, 0.0)
