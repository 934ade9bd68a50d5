"""Average ranks of strategies over the streams and seeds that all of them were run on (Demsar 2006)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.statistics.paired import Key

Array = NDArray[np.float64]
FEWEST = 3  # strategies; two are compared in pairs


@dataclass(frozen=True)
class Ranking:
    """Strategies by average rank, the best first.

    Attributes:
        names: the k strategies.
        ranks: (k,) average rank of each, 1 is best; equal values share their ranks.
        count: N, the (stream, seed) pairs that all strategies have.
        p: Friedman's test that all strategies are alike; NaN where every pair is a tie.
        critical: difference of average ranks that two strategies must have to differ (Nemenyi's test, level .05).
        groups: (first, last) places of the largest runs of strategies that differ by less than that.
    """

    names: tuple[str, ...]
    ranks: Array
    count: int
    p: float
    critical: float
    groups: tuple[tuple[int, int], ...]


def ranking(values: Mapping[str, Mapping[Key, float]], better: str = "higher") -> Ranking | None:
    """Rank strategies on every (stream, seed) pair that all of them have, and test whether they differ.

    Args:
        values: strategy -> (stream, seed) -> value of one metric; NaN is left out.
        better: ``higher`` or ``lower``.

    Returns:
        None for fewer than three strategies or two shared pairs.
    """
    from scipy import stats

    names = list(values)
    found = [{key for key, value in values[name].items() if np.isfinite(value)} for name in names]
    shared = sorted(set.intersection(*found)) if found else []
    k, n = len(names), len(shared)
    if k < FEWEST or n < 2:
        return None
    table = np.array([[values[name][key] for name in names] for key in shared])
    ranks = stats.rankdata(-table if better == "higher" else table, axis=1).mean(axis=0)
    tied = bool((table == table[:, :1]).all())
    p = float("nan") if tied else float(stats.friedmanchisquare(*table.T).pvalue)
    order = np.argsort(ranks, kind="stable")
    critical = critical_difference(k, n)
    return Ranking(tuple(names[i] for i in order), ranks[order], n, p, critical, alike(ranks[order], critical))


def critical_difference(k: int, n: int, level: float = 0.05) -> float:
    """Return Nemenyi's critical difference for k strategies on n pairs: q sqrt(k (k + 1) / (6 n)).

    q is the studentised range for infinite freedom over sqrt 2 (Demsar 2006, section 3.2.2, table 5).

    >>> round(critical_difference(4, 14), 2)  # Demsar's example: 2.569 * sqrt(4 * 5 / (6 * 14))
    1.25
    """
    from scipy import stats

    q = float(stats.studentized_range.ppf(1 - level, k, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(k * (k + 1) / (6 * n)))


def alike(ranks: Array, critical: float) -> tuple[tuple[int, int], ...]:
    """Return (first, last) places of the largest runs of sorted ranks (k,) whose range is below `critical`.

    >>> alike(np.array([1.0, 1.8, 2.5, 4.7]), 1.0)
    ((0, 1), (1, 2))
    """
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.flatnonzero(ranks - ranks[first] < critical)[-1])
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return tuple(runs)
