"""Mean and interval over seeds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.errors import expect

Array = NDArray[np.float64]
METHODS = ("t", "bootstrap")


@dataclass(frozen=True)
class Interval:
    """Mean and interval of numbers that were measured once a seed.

    Attributes:
        mean: of the finite values, NaN where there is none; the shape of one seed's values.
        low: lower end, NaN for fewer than two values.
        high: upper end.
        count: finite values that entered.
    """

    mean: Array
    low: Array
    high: Array
    count: NDArray[np.int64]

    @property
    def half(self) -> Array:
        """Half the width."""
        return np.asarray((self.high - self.low) / 2)


def interval(values: Array, method: str = "t", level: float = 0.95) -> Interval:
    """Return mean and interval over the first axis; NaN is left out.

    Args:
        values: (S, ...).
        method: ``t`` (Student's, exact for normal values) or ``bootstrap`` (bias-corrected and accelerated, Efron 1987;
            too narrow for fewer than about eight seeds).
        level: coverage, in (0, 1).

    >>> found = interval(np.array([0.90, 0.92, 0.94]))
    >>> round(float(found.mean), 3), round(float(found.half), 4)  # 4.3027 * .02 / sqrt(3)
    (0.92, 0.0497)
    """
    expect(method in METHODS, "interval", f"in {list(METHODS)}", method)
    expect(0 < level < 1, "level", "in (0, 1)", level)
    found = np.asarray(values, np.float64)
    finite = np.isfinite(found)
    count = finite.sum(axis=0)
    total = np.where(finite, found, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    low, high = _student(found, finite, mean, count, level) if method == "t" else _bootstrap(found, mean, level)
    return Interval(np.asarray(mean), low, high, np.asarray(count))


def _student(
    found: Array, finite: NDArray[np.bool_], mean: Array, count: NDArray[np.int64], level: float
) -> tuple[Array, Array]:
    from scipy import special

    squares = np.where(finite, (found - mean) ** 2, 0.0).sum(axis=0)
    enough = count > 1
    freedom = np.maximum(count - 1, 1)
    error = np.sqrt(squares / freedom / np.maximum(count, 1))
    half = np.where(enough, special.stdtrit(freedom, 0.5 + level / 2) * error, np.nan)
    return np.asarray(mean - half), np.asarray(mean + half)


def _bootstrap(found: Array, mean: Array, level: float) -> tuple[Array, Array]:
    from scipy import stats

    low, high = np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    for at, column in zip(np.ndindex(mean.shape), found.reshape(len(found), -1).T, strict=True):
        column = column[np.isfinite(column)]
        if len(column) < 2:
            continue
        if np.ptp(column) == 0:  # nothing to resample: the interval is the point
            low[at] = high[at] = column[0]
            continue
        drawn = stats.bootstrap((column,), np.mean, confidence_level=level, rng=np.random.default_rng(0))
        low[at], high[at] = drawn.confidence_interval
    return low, high
