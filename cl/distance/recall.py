"""Recall against distance: how often something read d steps ago is given back rightly."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_Z = 1.959963984540054  # 95 % of a normal distribution
RESAMPLES = 2000


@dataclass(frozen=True)
class HalfLife:
    """A distance at which half of the recall is lost.

    Attributes:
        steps: the estimate; infinite where half is never lost within the distances measured, NaN where nothing is
            recalled at any distance.
        low, high: 95 % bias-corrected percentile bootstrap over samples (Efron 1981).
    """

    steps: float
    low: float
    high: float


def wilson(mean: Array, count: Array, z: float = _Z) -> tuple[Array, Array]:
    """Return the interval of Wilson 1927 for proportions `mean` of `count` samples; z = 1.96 for 95 %.

    >>> [round(float(v), 4) for v in wilson(np.array(1.0), np.array(10.0))]
    [0.7225, 1.0]
    """
    spread = 1 + z**2 / count
    centre = (mean + z**2 / (2 * count)) / spread
    half = z / spread * np.sqrt(mean * (1 - mean) / count + z**2 / (4 * count**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def half_distance(distance: Array, recall: Array, chance: float) -> float:
    """Return the distance, beyond the one recalled best, at which recall above chance has fallen to half of its best.

    The best distance is the shortest one unless a network was trained on long distances alone. Linear between measured
    distances; infinite where recall does not fall so far, NaN where it is nowhere above chance.

    Args:
        distance: (L,) rising.
        recall: (L,).
        chance: recall of a guess.

    >>> half_distance(np.array([0.0, 10.0, 20.0]), np.array([1.0, 0.8, 0.4]), 0.2)
    15.0
    """
    above = recall - chance
    best = int(above.argmax())
    if above[best] <= 0:
        return float("nan")
    goal = above[best] / 2
    below = np.flatnonzero(above[best:] <= goal)
    if len(below) == 0:
        return float("inf")
    i = best + int(below[0])
    fraction = (above[i - 1] - goal) / (above[i - 1] - above[i])
    return float(distance[i - 1] + fraction * (distance[i] - distance[i - 1]))


def half_life(score: Array, distance: Array, chance: float, seed: int) -> HalfLife:
    """Return the half-distance of recall with a 95 % interval, by resampling the samples at each distance.

    NaN where the best recall is not above chance by its own interval (Wilson, corrected for the number of distances).

    Args:
        score: (n,) in [0, 1].
        distance: (n,) steps.
        chance: recall of a guess.
        seed: of the resampling.
    """
    steps, place = np.unique(distance, return_inverse=True)
    groups = [np.asarray(score, float)[place == i] for i in range(len(steps))]
    mean, count = np.array([g.mean() for g in groups]), np.array([float(len(g)) for g in groups])
    best = int(mean.argmax())
    z = NormalDist().inv_cdf(1 - 0.025 / len(steps))
    if wilson(mean, count, z)[0][best] <= chance:
        return HalfLife(float("nan"), float("nan"), float("nan"))
    estimate = half_distance(steps.astype(float), mean, chance)
    generator = np.random.default_rng(seed)
    means = np.stack([g[generator.integers(len(g), size=(RESAMPLES, len(g)))].mean(1) for g in groups], 1)
    found = np.sort([half_distance(steps.astype(float), row, chance) for row in means])
    found = found[~np.isnan(found)]
    if len(found) == 0:
        return HalfLife(estimate, float("nan"), float("nan"))
    # The best of several noisy means is too high, so that half of it is met too early, by a resample as by the sample.
    below = ((found < estimate).mean() + (found <= estimate).mean()) / 2
    normal, least = NormalDist(), 0.5 / len(found)
    bias = normal.inv_cdf(min(max(float(below), least), 1 - least))
    shares = (normal.cdf(2 * bias + z) for z in (-_Z, _Z))
    low, high = (float(found[int(q * (len(found) - 1))]) for q in shares)  # infinities do not interpolate
    return HalfLife(estimate, low, high)
