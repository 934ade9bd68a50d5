"""What trackers that draw curves on a board have in common: which numbers they show, and under which names."""

import importlib.util
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from cl.errors import ConfigError
from cl.objectives import MASKED
from cl.results import Results
from cl.trackers.base import RunFacts, Tracker

Array = NDArray[np.float64]


class Board(Tracker):
    """A tracker that shows scalars against the steps since the beginning of the run; tasks count from 1.

    Subclasses give `begin`, `write` and `finish`. Names: ``train/loss``, ``accuracy/task_1`` and ``loss/task_1`` (whole
    test split, before training and after every task), ``curve/task_1`` (within tasks, fixed subset), ``drop/task_1``
    (accuracy lost since it was learned), ``seen/accuracy`` (mean over the tasks seen), ``tasks_learned``.
    """

    def start(self, facts: RunFacts) -> None:
        """Begin the board."""
        self._offset = facts.step  # steps of the tasks that are finished
        self._just_learned = np.full(facts.info.n_tasks, np.nan)
        self.begin(facts)

    def begin(self, facts: RunFacts) -> None:
        """Open what the numbers go to."""
        raise NotImplementedError

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show values at a step."""
        raise NotImplementedError

    def progress(self, task: int, step: int, steps: int, loss: float) -> None:
        """Show the training loss."""
        self.write(self._offset + step, {"train/loss": loss, "train/task": task + 1})

    def curve(self, step: int, task: int, accuracy: Array) -> None:
        """Show a point of every task's within-task curve."""
        self.write(step, series("curve", accuracy))

    def row(self, k: int, step: int, accuracy: Array, loss: Array) -> None:
        """Show accuracy, loss and drop of every task."""
        self._offset = step
        told = np.where(loss < -MASKED / 2, loss, np.nan)  # else outputs are masked: 1e9 hides all others
        values = {"tasks_learned": k, **series("accuracy", accuracy), **series("loss", told)}
        if k > 0:
            self._just_learned[k - 1] = accuracy[k - 1]
            values |= series("drop", self._just_learned - accuracy) | {"seen/accuracy": float(accuracy[:k].mean())}
        self.write(step, values)


def needs(package: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        ConfigError: it is not; the message says how to get it.
    """
    if importlib.util.find_spec(package) is None:
        how = f"pip install 'lethe[{extra}]'"
        raise ConfigError(f"Expected `tracker.{extra}` only where {package} is installed, got no such package: {how}")


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
    """Return every measure and cost of a run as one number each: ``measures/forgetting``, ``costs/samples``, ...

    Of what a measure saw of the network, the mean as it is after the last task.
    """
    from cl.groups import final
    from cl.metrics.base import measure, per_replica

    found = {f"measures/{name}": per_replica(values).mean() for name, values in measure(results).items()}
    for name, facts in results.measures.items():
        if facts.get("summary", True):
            found[f"measures/{name}"] = final(facts, np.asarray(facts["values"], np.float64)[None])[0]
    found |= {f"costs/{name}": value for name, value in results.costs.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}
