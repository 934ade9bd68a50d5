"""The Ebbinghaus question: which curve does forgetting follow, and what is its half-life?

Retention R(t) is the accuracy on a task t steps after its training ended, over its accuracy at that moment. Two curves
with two parameters each are fitted by least squares: *exponential*, f + (1 - f) exp(-t / tau), which levels off, and
*power law*, (1 + t / s)^-b, which slows down without end (Wickelgren 1974). The one with the lower information
criterion is chosen; where R = 1, which has no parameter, has a lower one than both, nothing was forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.errors import expect

Array = NDArray[np.float64]
FEWEST = 5  # points from which the corrected criterion of two parameters and a variance is a number
LEARNED = 0.1  # smallest accuracy right after training of which a part can be said to be kept


def exponential(t: Array, floor: float, tau: float) -> Array:
    """Return f + (1 - f) exp(-t / tau)."""
    return np.asarray(floor + (1 - floor) * np.exp(-t / tau))


def power_law(t: Array, scale: float, slope: float) -> Array:
    """Return (1 + t / s)^-b."""
    return np.asarray((1 + t / scale) ** -slope)


NONE = "none"  # the curve R = 1
CURVES: dict[str, Callable[[Array, float, float], Array]] = {"exponential": exponential, "power law": power_law}


@dataclass(frozen=True)
class Fit:
    """A forgetting curve.

    Attributes:
        curve: ``exponential``, ``power law``, or ``none`` where nothing was forgotten.
        parameters: (f, tau) or (s, b), tau and s in steps; () of none.
        half_life: steps until half is left; infinite where the curve never falls that low.
        low: lower end of its 95 % interval (jackknife over replicas), NaN where it cannot be told.
        high: upper end.
        aic: corrected Akaike information criterion of the curve chosen.
        advantage: how much lower it is than that of the next; above 4 the choice is clear (Burnham and Anderson 2004).
    """

    curve: str
    parameters: tuple[float, ...]
    half_life: float
    low: float
    high: float
    aic: float
    advantage: float

    def __call__(self, t: Array) -> Array:
        """Return retention at t steps: (N,)."""
        return np.ones(len(t)) if self.curve == NONE else CURVES[self.curve](t, *self.parameters)


def retention(accuracy: Array, task_steps: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return steps since learned (N,) and retention (S, N) of every task at the end of every later task.

    Later tasks that took no steps do not count. NaN for a task that was hardly learned (accuracy below `LEARNED`).

    Args:
        accuracy: (S, K+1, K).
        task_steps: (K,) steps trained on each task.

    >>> R = np.array([[[0.5, 0.5, 0.5], [0.8, 0.5, 0.5], [0.4, 0.9, 0.5], [0.2, 0.45, 0.9]]])
    >>> [found.tolist() for found in retention(R, np.array([10, 10, 10]))]  # .4/.8, .2/.8; .45/.9
    [[10.0, 20.0, 10.0], [[0.5, 0.25, 0.5]]]
    """
    k = accuracy.shape[2]
    ends = np.cumsum(task_steps)
    taken = [row for row in range(1, len(ends) + 1) if task_steps[row - 1] > 0]
    pairs = [(j, row) for j in range(k) for row in taken if row > j + 1]
    t = np.array([float(ends[row - 1] - ends[j]) for j, row in pairs])
    learned = np.where(accuracy >= LEARNED, accuracy, np.nan)
    columns = [accuracy[:, row, j] / learned[:, j + 1, j] for j, row in pairs]
    return t, np.stack(columns, axis=1) if columns else np.zeros((len(accuracy), 0))


def fit(t: Array, kept: Array) -> Fit | None:
    """Fit both curves and return the better one, or none of them; None for too few points or moments.

    Args:
        t: (N,) steps since learned, > 0.
        kept: (S, N) retention, NaN is left out.

    >>> steps = np.tile(np.arange(100.0, 1000.0, 100.0), 1)
    >>> found = fit(steps, exponential(steps, 0.2, 300.0)[None])
    >>> found.curve, round(found.half_life)  # 300 * log(.8 / .3)
    ('exponential', 294)
    """
    expect(kept.ndim == 2 and kept.shape[1] == len(t), "kept", f"of shape (S, {len(t)})", kept.shape)
    x, y = np.broadcast_to(t, kept.shape).ravel(), kept.ravel()
    good = np.isfinite(y)
    x, y = x[good], y[good]
    if len(y) < FEWEST or len(np.unique(x)) < 3:
        return None
    found = {curve: _least_squares(curve, x, y) for curve in CURVES}
    order = sorted(found, key=lambda curve: found[curve][1])
    best = order[0]
    parameters, aic = found[best]
    unchanged = _criterion(float(((y - 1) ** 2).sum()), len(y), 1)
    if unchanged <= aic:
        return Fit(NONE, (), float("inf"), float("nan"), float("nan"), unchanged, aic - unchanged)
    low, high = _jackknife(best, t, kept)
    life = half_life(best, parameters)
    return Fit(best, parameters, life, low, high, aic, min(found[order[1]][1], unchanged) - aic)


def half_life(curve: str, parameters: tuple[float, float]) -> float:
    """Return the steps after which retention is one half, infinite where it stays above.

    >>> round(half_life("power law", (10.0, 1.0)), 6), half_life("exponential", (0.6, 10.0))
    (10.0, inf)
    """
    first, second = parameters
    if curve == "exponential":
        return float(second * np.log((1 - first) / (0.5 - first))) if first < 0.5 else float("inf")
    with np.errstate(over="ignore"):  # too long for a number: infinite
        return float(first * np.expm1(min(np.log(2) / max(second, 1e-12), 700.0)))


def _least_squares(curve: str, x: Array, y: Array) -> tuple[tuple[float, float], float]:
    """Return parameters and corrected AIC, from the best of a few starting points."""
    from scipy import optimize

    middle = float(np.median(x))
    function = CURVES[curve]

    def residuals(p: Array) -> Array:
        first, second = (p[0], np.exp(p[1])) if curve == "exponential" else (np.exp(p[0]), p[1])
        return function(x, float(first), float(second)) - y

    log = np.log(middle)
    starts = [(0.1, log), (0.6, log - 2)] if curve == "exponential" else [(log, 0.5), (log - 3, 0.2)]
    bounds = ([0.0, log - 15], [1.0, log + 15]) if curve == "exponential" else ([log - 15, 0.0], [log + 15, 50.0])
    fits = [optimize.least_squares(residuals, start, bounds=bounds) for start in starts]
    best = min(fits, key=lambda found: float(found.cost))
    a, b = (float(v) for v in best.x)
    aic = _criterion(2 * float(best.cost), len(y), 3)
    return ((a, float(np.exp(b))) if curve == "exponential" else (float(np.exp(a)), b)), aic


def _criterion(squares: float, n: int, p: int) -> float:
    """Return the corrected AIC of `n` points with a sum of `squares`; `p` counts parameters and the variance."""
    error = max(squares / n, 1e-12)
    return float(n * np.log(error) + 2 * p + (2 * p * (p + 1) / (n - p - 1) if n > p + 1 else np.inf))


def _jackknife(curve: str, t: Array, kept: Array) -> tuple[float, float]:
    """Return the 95 % interval of the half-life: t interval of its logarithm, leaving one replica out at a time."""
    from scipy import stats

    s = len(kept)
    if s < 3:
        return float("nan"), float("nan")
    logs = []
    for left_out in range(s):
        rest = np.delete(kept, left_out, axis=0)
        good = np.isfinite(rest)
        if good.sum() < FEWEST:
            return float("nan"), float("nan")
        parameters, _ = _least_squares(curve, np.broadcast_to(t, rest.shape)[good], rest[good])
        logs.append(np.log(half_life(curve, parameters)))
    if not np.isfinite(logs).all():
        return float("nan"), float("nan")
    good = np.isfinite(kept)
    parameters, _ = _least_squares(curve, np.broadcast_to(t, kept.shape)[good], kept[good])
    whole = np.log(half_life(curve, parameters))
    error = np.sqrt((s - 1) / s * ((np.array(logs) - np.mean(logs)) ** 2).sum())
    half = float(stats.t.ppf(0.975, s - 1)) * error
    return float(np.exp(whole - half)), float(np.exp(min(whole + half, 700.0)))
