"""The Tracker contract: told of what happens in a run, any number at once; it never influences training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl.results import Results
from cl.streams.base import StreamInfo


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told at the start.

    Attributes:
        name: short name, e.g. ``split_mnist-ewc-seed0``.
        group: name shared by the runs of one sweep.
        folder: the run folder, or None when nothing is written.
        config: the resolved configuration, plain types.
        info: facts of the stream.
        tags: free labels.
        step: steps of the tasks that were finished before, for a resumed run.
        language: True if a text is predicted character by character.
        leads: False for a replica beside which another one has such a tracker, which speaks for both on a screen.
    """

    name: str
    group: str
    folder: Path | None
    config: dict[str, Any]
    info: StreamInfo
    tags: tuple[str, ...] = ()
    step: int = 0
    language: bool = False
    leads: bool = True


class Tracker:
    """Base of all trackers; every method does nothing."""

    def start(self, facts: RunFacts) -> None:
        """Begin: before any training."""

    def progress(self, task: int, step: int, steps: int, loss: float) -> None:
        """Tell of steps done (`step` of `steps` in `task`) and the mean loss since the last call."""

    def curve(self, step: int, task: int, accuracy: NDArray[np.float64]) -> None:
        """Tell of a within-task evaluation: total steps so far, task in training, accuracy (K,) with NaN."""

    def row(self, k: int, step: int, accuracy: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """Tell of a row of the accuracy matrix: k = 0 before training, k after task k (1-based); (K,) each."""

    def finish(self, results: Results, status: str) -> None:
        """End: status is ``complete``, ``failed`` or ``interrupted``."""
