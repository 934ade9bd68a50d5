"""Paired tests between strategies that were run on the same streams with the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cl.statistics.intervals import interval

Array = NDArray[np.float64]
Key = tuple[str, int]  # (stream, seed)


@dataclass(frozen=True)
class Pair:
    """A comparison of strategies `a` and `b` over what both were run on.

    Attributes:
        a: one strategy.
        b: the other.
        count: shared (stream, seed) pairs.
        difference: mean of a - b.
        low: lower end of its interval.
        high: upper end.
        p: two-sided paired t test (NaN for fewer than two pairs).
        p_holm: `p` corrected for all comparisons made at once (Holm 1979).
        p_wilcoxon: signed-rank test (exact where there are no ties), which assumes no normality; not corrected.
        effect: Cohen's d of the differences, mean / standard deviation.
    """

    a: str
    b: str
    count: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    p_wilcoxon: float
    effect: float


def compare(values: Mapping[str, Mapping[Key, float]], method: str = "t", level: float = 0.95) -> list[Pair]:
    """Compare every two strategies over the (stream, seed) pairs that both have.

    Args:
        values: strategy -> (stream, seed) -> value of one metric; NaN is left out.
        method: of the interval, see `cl.statistics.intervals.interval`.
        level: its coverage.

    Returns:
        one `Pair` for each two strategies, in their order.
    """
    found = []
    for a, b in combinations(values, 2):
        shared = [k for k in values[a] if k in values[b] and np.isfinite([values[a][k], values[b][k]]).all()]
        found.append((a, b, _differences([values[a][k] for k in shared], [values[b][k] for k in shared])))
    tests = [_test(differences) for _, _, differences in found]
    corrected = holm([p for p, _ in tests])
    pairs = []
    for (a, b, differences), (p, wilcoxon), p_holm in zip(found, tests, corrected, strict=True):
        over = interval(differences, method, level)
        deviation = np.nan if len(differences) < 2 else differences.std(ddof=1) if np.ptp(differences) > 0 else 0.0
        effect = float(over.mean / deviation) if deviation > 0 else (0.0 if over.mean == 0 else np.nan)
        pairs.append(
            Pair(
                a, b, len(differences), float(over.mean), float(over.low), float(over.high), p, p_holm, wilcoxon, effect
            )
        )
    return pairs


def _differences(a: Sequence[float], b: Sequence[float]) -> Array:
    """Return a - b (n,), in which what differs by rounding alone is equal."""
    differences = np.subtract(a, b, dtype=np.float64)
    rounding = 1e-12 * float(np.max(np.abs([a, b]), initial=0.0))
    differences[np.abs(differences) <= rounding] = 0.0
    if len(differences) > 0 and np.ptp(differences) <= rounding:
        differences[:] = differences.mean()
    return differences


def _test(differences: Array) -> tuple[float, float]:
    """Return p of the paired t test and of Wilcoxon's signed-rank test."""
    from scipy import stats

    if len(differences) < 2:
        return np.nan, np.nan
    if not differences.any():
        return 1.0, 1.0
    if np.ptp(differences) == 0:  # no spread: the t statistic is infinite
        return 0.0, float(stats.wilcoxon(differences).pvalue)
    return float(stats.ttest_1samp(differences, 0.0).pvalue), float(stats.wilcoxon(differences).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method (1979); NaN stays and is not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p, np.float64)
    corrected = np.full(len(given), np.nan)
    tested = np.flatnonzero(np.isfinite(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0) if len(order) else 0.0
    return [round(float(c), 12) for c in corrected]
