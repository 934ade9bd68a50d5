"""Tracker into the run folder: ``log.txt`` for people, ``progress.jsonl`` for programs that watch the run."""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cl.results import Results
from cl.trackers.base import RunFacts, Tracker

PROGRESS, LOG = "progress.jsonl", "log.txt"
Array = NDArray[np.float64]


class Files(Tracker):
    """Appends one json object an event to ``progress.jsonl`` and a line a task to ``log.txt``.

    Events: ``start`` (name, tasks, and what the loss is of: language, regression), ``progress`` (task, step, steps,
    loss), ``curve`` (step, task, accuracy), ``row`` (k, step, accuracy, loss), ``finish`` (status); each with ``time``,
    seconds since the epoch. NaN is null. A resumed run appends a new ``start`` and repeats what lies after its
    checkpoint: the later of two equal events counts. Does nothing in a run without a folder.
    """

    def __init__(self) -> None:
        self._progress: IO[str] | None = None
        self._log: IO[str] | None = None
        self._tasks = 0

    def start(self, facts: RunFacts) -> None:
        """Open both files."""
        if facts.folder is None:
            return
        self._tasks = facts.info.n_tasks
        self._progress = _append(facts.folder / PROGRESS)
        self._log = _append(facts.folder / LOG)
        kind = {"language": facts.language, "regression": facts.info.target == "real"}
        self._event("start", name=facts.name, tasks=self._tasks, **kind)
        self._line(f"start {facts.name}: {self._tasks} tasks, scenario {facts.info.scenario}, seed {facts.info.seed}")

    def progress(self, task: int, step: int, steps: int, loss: float) -> None:
        """Append the position and the loss."""
        self._event("progress", task=task, step=step, steps=steps, loss=loss)

    def curve(self, step: int, task: int, accuracy: Array) -> None:
        """Append a point of the within-task curve."""
        self._event("curve", step=step, task=task, accuracy=accuracy.tolist())

    def row(self, k: int, step: int, accuracy: Array, loss: Array) -> None:
        """Append a row of the accuracy matrix."""
        self._event("row", k=k, step=step, accuracy=accuracy.tolist(), loss=loss.tolist())
        self._line(f"after task {k}/{self._tasks}, step {step}: accuracy {' '.join(f'{a:.4f}' for a in accuracy)}")

    def finish(self, results: Results, status: str) -> None:
        """Say how it ended and close both files."""
        self._event("finish", status=status)
        self._line(f"{status} after {sum(results.task_steps.tolist())} steps")
        for file in (self._progress, self._log):
            if file is not None:
                file.close()
        self._progress = self._log = None

    def _event(self, event: str, **fields: Any) -> None:
        if self._progress is not None:
            plain = _plain({"event": event, "time": round(time.time(), 3), **fields})
            self._progress.write(json.dumps(plain, allow_nan=False) + "\n")

    def _line(self, text: str) -> None:
        if self._log is not None:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run, oldest first; half-written lines are left out; empty where there is no file."""
    path = folder / PROGRESS
    events: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # the process or the disk ended in the middle of it
                events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict)]


def _append(path: Path) -> IO[str]:
    """Open a file to append whole lines, on a line of its own."""
    file = path.open("a", encoding="utf-8", buffering=1)
    if file.tell() > 0 and not path.read_bytes().endswith(b"\n"):
        file.write("\n")
    return file


def _plain(value: Any) -> Any:
    """Return `value` with numbers that are not finite as None, which strict json can hold."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
