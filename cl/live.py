"""A run while it trains, read from the events that the tracker `files` appends to its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl.results import Results

Array = NDArray[np.float64]


@dataclass
class Live:
    """What a run has told so far.

    Attributes:
        name: of the run.
        tasks: number of tasks K; 0 before the run has begun.
        task: task in training, from 0.
        step: steps done of it.
        steps: steps it will take.
        loss: mean loss of the last steps, NaN before any.
        began: time of the first event, seconds since the epoch.
        last: time of the last event.
        seconds: time between events, without the pauses of a run that was cut; a clock set back adds nothing.
        status: ``running``, or how it ended.
        language, regression: what the loss is of, see `Results`; False of runs of earlier versions.
        rows: row number -> (total steps, accuracy (K,), loss (K,)).
        points: total steps -> (task, accuracy (K,)).
    """

    name: str = ""
    tasks: int = 0
    task: int = 0
    step: int = 0
    steps: int = 0
    loss: float = float("nan")
    began: float = 0.0
    last: float = 0.0
    seconds: float = 0.0
    status: str = "running"
    language: bool = False
    regression: bool = False
    rows: dict[int, tuple[int, Array, Array]] = field(default_factory=dict)
    points: dict[int, tuple[int, Array]] = field(default_factory=dict)

    @property
    def done(self) -> float:
        """Part of the run that is done, in [0, 1], tasks taken as equally long."""
        within = self.step / self.steps if self.steps else 0.0
        finished = max(self.rows, default=0)
        return min(1.0, (max(finished, self.task) + (within if self.task >= finished else 0.0)) / max(self.tasks, 1))

    def results(self, seed: int) -> Results | None:
        """Return what was measured so far; None before the first row."""
        if not self.tasks or not self.rows:
            return None
        k = self.tasks
        accuracy, loss = np.full((1, k + 1, k), np.nan), np.full((1, k + 1, k), np.nan)
        for row, (_, a, c) in self.rows.items():
            accuracy[0, row], loss[0, row] = a, c
        ends = [self.rows[row][0] for row in sorted(self.rows)]
        places = sorted(self.points)
        return Results(
            accuracy,
            loss,
            [seed],
            curve_step=np.array(places, np.int64),
            curve_task=np.array([self.points[p][0] for p in places], np.int64),
            curve_accuracy=np.array([self.points[p][1] for p in places], np.float64).reshape(1, len(places), k),
            task_steps=np.array([b - a for a, b in pairwise(ends)], np.int64),
            language=self.language,
            regression=self.regression,
        )


def follow(events: Sequence[Mapping[str, Any]]) -> Live:
    """Return the state of a run after its events; of two equal events the later counts (a resumed run repeats some)."""
    live = Live()
    for event in events:
        live.began = live.began or float(event["time"])
        kind, before, live.last = event["event"], live.last, float(event["time"])
        live.seconds += max(live.last - before, 0.0) if kind != "start" and before else 0.0
        if kind == "start":
            live.name, live.tasks, live.status = str(event["name"]), int(event["tasks"]), "running"
            live.language, live.regression = (bool(event.get(name)) for name in ("language", "regression"))
        elif kind == "progress":
            live.task, live.step, live.steps = int(event["task"]), int(event["step"]), int(event["steps"])
            live.loss = float("nan") if event["loss"] is None else float(event["loss"])
        elif kind == "curve":
            live.points[int(event["step"])] = (int(event["task"]), _numbers(event["accuracy"]))
        elif kind == "row":
            values = (int(event["step"]), _numbers(event["accuracy"]), _numbers(event["loss"]))
            live.rows[int(event["k"])] = values
        elif kind == "finish":
            live.status = str(event["status"])
    return live


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def read(folder: Path) -> Live:
    """Return the state of the run in a folder; an empty one where it has told nothing."""
    from cl.trackers.files import read_events  # imports torch, which a report of finished runs does not need

    return follow(read_events(folder))
