"""What trackers call the numbers, the same on every board."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cl.results import Results

Array = NDArray[np.float64]


def series(kind: str, values: Array) -> dict[str, float]:
    """Return ``kind/task_1`` -> value for every task that has one; padded so that names sort.

    >>> series("accuracy", np.array([0.5, np.nan, 1.0]))
    {'accuracy/task_1': 0.5, 'accuracy/task_3': 1.0}
    """
    width = len(str(len(values)))
    return {f"{kind}/task_{j + 1:0{width}d}": float(v) for j, v in enumerate(values) if np.isfinite(v)}


def matrix_rows(accuracy: Array) -> list[Iterable[float]]:
    """Return (after task, task, accuracy) of every measured entry of an accuracy matrix (K+1, K).

    >>> matrix_rows(np.array([[0.5], [1.0]]))
    [(0, 1, 0.5), (1, 1, 1.0)]
    """
    return [(int(k), int(j) + 1, float(accuracy[k, j])) for k, j in np.argwhere(np.isfinite(accuracy))]


def summary(results: Results) -> dict[str, float]:
    """Return every measure and cost of a run as one number each: ``measures/forgetting``, ``costs/samples``, ..."""
    from cl.metrics.base import measure, per_replica

    found = {f"measures/{name}": per_replica(values).mean() for name, values in measure(results).items()}
    found |= {f"costs/{name}": value for name, value in results.costs.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}
