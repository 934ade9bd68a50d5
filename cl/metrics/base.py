"""What a metric is: a pure function and the facts a reader of its value needs."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cl.metrics
from cl.errors import ConfigError, expect, nearest
from cl.results import Results

Array = NDArray[np.float64]
BETTER = ("higher", "lower")


class Metric:
    """A metric: call it like the function it wraps; it never changes its input.

    Args:
        function: from fields of `Results` (and `joint` / `naive`) to one value a replica, (S,), or one for each of its
            tasks, (S, K).
        better: ``higher`` or ``lower``, the direction that is good.
        meaning: one sentence on what the value says.
        source: who defined it: authors, year, equation or section.
        unit: ``fraction``, or e.g. ``steps``.
    """

    def __init__(self, function: Callable[..., Array], better: str, meaning: str, source: str, unit: str) -> None:
        expect(better in BETTER, "better", f"in {list(BETTER)}", better)
        functools.update_wrapper(self, function)
        self.function = function
        self.name = function.__name__
        self.better, self.meaning, self.source, self.unit = better, meaning, source, unit
        parameters = inspect.signature(function).parameters.values()
        self.inputs = tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Return the values: (S,) or (S, K)."""
        return self.function(*args, **kwargs)

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")


def metric(better: str, meaning: str, source: str, unit: str = "fraction") -> Callable[[Callable[..., Array]], Metric]:
    """Turn a function into a `Metric`; see there for the arguments."""
    return lambda function: Metric(function, better, meaning, source, unit)


def discover() -> dict[str, Metric]:
    """Return every metric of this package by name, those that need the least data first.

    >>> "forgetting" in discover()
    True
    """
    found: dict[str, Metric] = {}
    for module in pkgutil.iter_modules(cl.metrics.__path__, f"{cl.metrics.__name__}."):
        members = vars(importlib.import_module(module.name)).values()
        found |= {m.name: m for m in members if isinstance(m, Metric) and m.__module__ == module.name}
    return dict(sorted(found.items(), key=lambda item: len(item[1].inputs)))


def find(names: list[str]) -> list[Metric]:
    """Return metrics by name.

    Raises:
        ConfigError: a name is unknown.
    """
    known = discover()
    for name in names:
        if name not in known:
            raise ConfigError(f"Expected `metric` in {sorted(known)}, got {name!r}{nearest(name, known)}")
    return [known[name] for name in names]


def measure(results: Results, references: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Compute every metric that has its data.

    Args:
        results: what a run recorded, S replicas.
        references: ``joint`` and ``naive`` -> accuracy matrix (S or 1, K+1, K) of that run on the same stream.

    Returns:
        name -> (S,) or (S, K). Metrics of the within-task curve or the online accuracy are left out where these
        were not recorded, metrics against a reference where that reference is not given.
    """
    given: dict[str, Any] = {**vars(results), "bits": results.bits, "errors": results.errors, **(references or {})}
    available = {name for name, value in given.items() if not (isinstance(value, np.ndarray) and value.size == 0)}
    return {
        name: found(**{field: given[field] for field in found.inputs})
        for name, found in discover().items()
        if set(found.inputs) <= available
    }


def per_replica(values: Array) -> Array:
    """Reduce the values of a metric to one a replica, (S,): the mean over tasks that have a value.

    >>> per_replica(np.array([[np.nan, 0.25, 0.75]])).tolist()
    [0.5]
    """
    if values.ndim == 1:
        return values
    return mean_where(values, np.isfinite(values))


def check_matrix(accuracy: Array, name: str = "accuracy") -> Array:
    """Return `accuracy` as float64 after checking that it is (S, K+1, K).

    Raises:
        ConfigError: another shape.
    """
    found: Array = np.asarray(accuracy, np.float64)
    good = found.ndim == 3 and found.shape[1] == found.shape[2] + 1 and found.shape[2] > 0
    expect(good, name, "of shape (S, K+1, K)", found.shape)
    return found


def tasks_learned(accuracy: Array) -> NDArray[np.int64]:
    """Return how many tasks each replica has finished: (S,), the index of its last row that is not all NaN.

    >>> tasks_learned(np.array([[[0.1, 0.1], [0.9, 0.1], [np.nan, np.nan]]])).tolist()
    [1]
    """
    reached = np.any(np.isfinite(accuracy), axis=2)
    rows: NDArray[np.int64] = np.where(reached, np.arange(accuracy.shape[1]), 0).max(axis=1)
    return rows


def last_row(accuracy: Array) -> Array:
    """Return each replica's accuracy after the last task it finished: (S, K)."""
    rows = tasks_learned(accuracy)
    return np.asarray(accuracy[np.arange(len(accuracy)), rows])


def just_learned(accuracy: Array) -> Array:
    """Return the accuracy on every task right after it was trained, the diagonal: (S, K)."""
    tasks = np.arange(accuracy.shape[2])
    return np.asarray(accuracy[:, tasks + 1, tasks])


def mean_where(values: Array, mask: NDArray[np.bool_]) -> Array:
    """Return the mean over the last axis of the entries where `mask` holds; NaN where there is none.

    >>> mean_where(np.array([[1.0, 5.0], [2.0, 2.0]]), np.array([[True, False], [False, False]])).tolist()
    [1.0, nan]
    """
    count = mask.sum(axis=-1)
    total = np.where(mask, values, 0.0).sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
