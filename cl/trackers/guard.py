"""Keeps a tracker's trouble away from the run: a full disk or a dead server is warned of once, training goes on."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cl.results import Results
from cl.trackers.base import RunFacts, Tracker

Array = NDArray[np.float64]


class Guarded(Tracker):
    """A tracker that is dropped, with one warning, at its first exception.

    Args:
        tracker: the tracker to keep in check.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.alive = True

    def start(self, facts: RunFacts) -> None:
        """Pass on."""
        self._call(lambda: self.tracker.start(facts))

    def progress(self, task: int, step: int, steps: int, loss: float) -> None:
        """Pass on."""
        self._call(lambda: self.tracker.progress(task, step, steps, loss))

    def curve(self, step: int, task: int, accuracy: Array) -> None:
        """Pass on a copy."""
        self._call(lambda: self.tracker.curve(step, task, accuracy.copy()))

    def row(self, k: int, step: int, accuracy: Array, loss: Array) -> None:
        """Pass on copies."""
        self._call(lambda: self.tracker.row(k, step, accuracy.copy(), loss.copy()))

    def finish(self, results: Results, status: str) -> None:
        """Pass on."""
        self._call(lambda: self.tracker.finish(results, status))

    def _call(self, tell: Callable[[], None]) -> None:
        if not self.alive:
            return
        try:
            tell()
        except (Exception, SystemExit) as error:  # a tracker may fail in any way; none is a reason to lose a run
            self.alive = False
            name = type(self.tracker).__name__
            text = " ".join(str(error).split())
            warnings.warn(f"tracker {name} stopped, the run goes on: {type(error).__name__}: {text}", stacklevel=3)
