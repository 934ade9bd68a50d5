"""A strategy on the page: its runs, its place in the palette, its numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl.groups import Group, quantities
from cl.metrics.base import per_replica
from cl.report import timeline
from cl.report.figure import Series
from cl.statistics.intervals import Interval, interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """A group of runs on the page.

    Attributes:
        group: its runs.
        style: its place in the palette, the same on all streams of the page.
        values: metric -> (S,) or (S, K).
    """

    group: Group
    style: int
    values: dict[str, Array]

    @property
    def label(self) -> str:
        """The group's label, marked where the runs are not complete."""
        return self.group.label if self.group.finished else f"{self.group.label} [unfinished]"

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return int(self.group.accuracy.shape[2])

    @cached_property
    def seen(self) -> dict[str, tuple[dict[str, Any], Array]]:
        """What the measures that need the network saw, see `cl.groups.quantities`."""
        return quantities(self.group)

    def metric(self, name: str) -> Interval:
        """Mean and interval of a metric, one value a run."""
        return interval(per_replica(self.values[name]))

    def line(self, x: Array, values: Array, points: int | None = None) -> Series:
        """Return a line of shares (S, N) with a band over seeds within [0, 1], thinned to about `points`."""
        found = interval(values)
        keep = np.arange(len(x)) if points is None or len(x) <= points else timeline.thin(found.mean, points)
        low, high = np.clip(found.low, 0, 1), np.clip(found.high, 0, 1)
        return Series(self.label, self.style, x[keep], found.mean[keep], low[keep], high[keep])

    def dots(self, x: Array, values: Array, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Series:
        """Return points of values (S, N) with error bars over seeds within `bounds`."""
        found = interval(values)
        low, high = np.clip(found.low, *bounds), np.clip(found.high, *bounds)
        return Series(self.label, self.style, x, found.mean, low, high, joined=False)

    def beside(
        self, x: Array, values: Array, place: int, of: int, bounds: tuple[float, float] = (-np.inf, np.inf)
    ) -> Series:
        """Return points moved aside, so that those of several strategies at one x do not cover each other."""
        return self.dots(x + (place - (of - 1) / 2) * 0.7 / max(of, 1), values, bounds)
