"""Tracker to TensorBoard: event files in the run folder."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import yaml

from cl.results import Results
from cl.trackers.base import RunFacts
from cl.trackers.board import Board, matrix_rows, needs, summary

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Tensorboard(Board):
    """Scalars against steps, configuration and accuracy matrix as text; ``tensorboard --logdir runs`` shows them.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self) -> None:
        needs("tensorboard", "tensorboard")
        self._writer: SummaryWriter | None = None

    def begin(self, facts: RunFacts) -> None:
        """Open the event file of a run that has a folder."""
        if facts.folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(facts.folder / "tensorboard"))
        self._writer.add_text("config", "\n".join(f"    {line}" for line in yaml.safe_dump(facts.config).splitlines()))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def finish(self, results: Results, status: str) -> None:
        """Add all measures and the accuracy matrix, and close the file."""
        if self._writer is None:
            return
        step = sum(results.task_steps.tolist())
        self.write(step, summary(results))
        lines = [f"|{k}|{j}|{a:.4f}|" for k, j, a in matrix_rows(results.accuracy[0])]
        self._writer.add_text("accuracy_matrix", "\n".join(["|after task|task|accuracy|", "|-|-|-|", *lines]), step)
        self._writer.add_text("status", status, step)
        self._writer.close()
        self._writer = None
