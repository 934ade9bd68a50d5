"""Tracker for the person in front: a progress bar on a terminal, a few plain lines elsewhere."""

import multiprocessing
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cl.errors import expect
from cl.results import Results
from cl.trackers.base import RunFacts, Tracker

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Array = NDArray[np.float64]
ERROR = "squared error"
LISTED = 10  # accuracies of more tasks than this are summed up


class Console(Tracker):
    """Shows tasks, steps, loss, the time left, and the accuracy after each task, on standard error.

    The bar is drawn on a terminal by the main process alone. Elsewhere plain lines begin with the run's name: one after
    every task, or, in a worker of a sweep, one every so often and one at the end. Of replicas trained together,
    the first one speaks.

    Args:
        every: seconds between two plain lines where there is no terminal, >= 0.

    Raises:
        ConfigError: `every` is negative.
    """

    def __init__(self, every: float = 10.0) -> None:
        expect(every >= 0, "tracker.console.every", ">= 0", every)
        self.every = every
        self._facts: RunFacts | None = None
        self._worker = False
        self._bar: Progress | None = None
        self._bar_id: TaskID | None = None
        self._started = self._last = 0.0
        self._first: float | None = None  # tasks done when this process began: a resumed run starts in the middle

    def start(self, facts: RunFacts) -> None:
        """Begin the bar, or say what runs."""
        self._facts = facts
        self._worker = multiprocessing.current_process().name != "MainProcess"
        self._started = self._last = time.monotonic()
        self._first = None
        if not facts.leads:
            return
        if not self._worker and sys.stderr.isatty():
            self._draw(facts)
        elif not self._worker:
            self._print(f"{facts.info.n_tasks} tasks, scenario {facts.info.scenario}")

    def progress(self, task: int, step: int, steps: int, loss: float) -> None:
        """Move the bar; or print, when the last line is old enough."""
        done = task + step / steps
        if self._first is None:
            self._first = float(task)
        if self._bar is not None and self._bar_id is not None:
            text = f"task {task + 1}/{self._tasks()} step {step}/{steps} loss {loss:.4f}"
            self._bar.update(self._bar_id, completed=done, text=text)
            return
        now = time.monotonic()
        if now - self._last < self.every:
            return
        self._last = now
        left = (self._tasks() - done) * (now - self._started) / max(done - self._first, 1e-9)
        self._print(f"task {task + 1}/{self._tasks()} step {step}/{steps} loss {loss:.4f}, {clock(left)} left")

    def row(self, k: int, step: int, accuracy: Array, loss: Array) -> None:
        """Print the accuracy on the tasks seen."""
        now = time.monotonic()
        if k == 0 or (self._worker and now - self._last < self.every):
            return
        self._last = now
        told = row_text(loss[:k], ERROR) if self._real() else row_text(accuracy[:k])
        self._print(f"task {k}/{self._tasks()} done: {told}")
        if self._bar is not None and self._bar_id is not None:
            self._bar.update(self._bar_id, completed=k)

    def finish(self, results: Results, status: str) -> None:
        """Close the bar and say how it ended."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        k = int(np.isfinite(results.accuracy[0]).all(1).sum()) - 1
        name, table = (ERROR, results.loss) if self._real() else ("accuracy", results.accuracy)
        known = f"mean {name} {table[0, k, :k].mean():.3f}" if k > 0 else "no task learned"
        known += f" on {k} of {self._tasks()} tasks" if 0 < k < self._tasks() else ""
        self._print(f"{status} after {clock(time.monotonic() - self._started)}, {known}")

    def _real(self) -> bool:
        """Whether numbers are predicted, of which the error says more than the share that is right."""
        return self._facts is not None and self._facts.info.target == "real"

    def _tasks(self) -> int:
        return 0 if self._facts is None else self._facts.info.n_tasks

    def _draw(self, facts: RunFacts) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            BarColumn(bar_width=16),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )  # fits into 80 columns
        terminal = Terminal(stderr=True, highlight=False)
        terminal.print(f"{facts.name}: {facts.info.n_tasks} tasks, scenario {facts.info.scenario}", markup=False)
        self._bar = Progress(*columns, console=terminal, refresh_per_second=4)
        self._bar_id = self._bar.add_task(facts.name, total=facts.info.n_tasks, text="")
        self._bar.start()

    def _print(self, text: str) -> None:
        name = "" if self._facts is None else self._facts.name
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif self._facts is None or self._facts.leads:
            print(f"{name}: {text}", file=sys.stderr, flush=True)


def row_text(values: Array, name: str = "accuracy") -> str:
    """Return the accuracy, or what `name` says, on the tasks seen as text: each, or their range where they are many.

    >>> row_text(np.array([0.75, 1.0]))
    'accuracy 0.750 1.000, mean 0.875'
    >>> row_text(np.linspace(0, 1, 21))
    'accuracy 0.000 to 1.000 (newest 1.000), mean 0.500'
    """
    mean = f"mean {values.mean():.3f}"
    if len(values) <= LISTED:
        return f"{name} {' '.join(f'{v:.3f}' for v in values)}, {mean}"
    return f"{name} {values.min():.3f} to {values.max():.3f} (newest {values[-1]:.3f}), {mean}"


def clock(seconds: float) -> str:
    """Return a length of time as h:mm:ss.

    >>> clock(3725.4)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
