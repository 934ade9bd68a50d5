"""Tracker to Trackio: a board on one's own machine, no account; ``trackio show`` opens it."""

import contextvars
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cl.errors import expect
from cl.results import Results
from cl.trackers.base import RunFacts
from cl.trackers.board import Board, matrix_rows, needs, summary

if TYPE_CHECKING:
    from trackio.run import Run


class Trackio(Board):
    """One Trackio run a replica, in the group of its sweep.

    Args:
        project: name of the project there.

    Raises:
        ConfigError: the package trackio is not installed, or the project has no name.
    """

    def __init__(self, project: str = "lethe") -> None:
        needs("trackio", "trackio")
        expect(bool(project), "tracker.trackio.project", "a name", project)
        self.project = project
        self._run: Run | None = None

    def begin(self, facts: RunFacts) -> None:
        """Begin a run."""
        import trackio

        def init() -> "Run":
            config = {**facts.config, "run_folder": str(facts.folder), "tags": list(facts.tags)}
            return trackio.init(
                self.project, facts.name, facts.group, config=config, resume="allow", embed=False, auto_log_gpu=False
            )

        # The client ends the run that its context holds when another begins; replicas run side by side.
        self._run = contextvars.copy_context().run(init)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log values."""
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def finish(self, results: Results, status: str) -> None:
        """Log all measures and the accuracy matrix, and end the run."""
        import trackio

        if self._run is not None:
            rows = [list(row) for row in matrix_rows(results.accuracy[0])]
            table = trackio.Table(columns=["after_task", "task", "accuracy"], data=rows)
            last = {**summary(results), "accuracy_matrix": table, "status": status}
            self._run.log(last, step=sum(results.task_steps.tolist()))
            self._run.finish()
