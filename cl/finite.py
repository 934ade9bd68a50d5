"""What must be a number for a run to go on: the losses of its steps, and what its network answers."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cl.errors import TrainingError

Array = NDArray[np.float64]


def bad_loss(block: Tensor) -> int | None:
    """Return where the first loss that is not finite stands in (n,) on the CPU, or None where all are."""
    bad = (~block.isfinite()).nonzero()
    return int(bad[0]) if len(bad) > 0 else None


def loss_error(loss: Tensor, task: int, step: int) -> TrainingError:
    """Return the error of a loss () that is not finite."""
    return TrainingError(
        f"Expected a finite loss, got {float(loss)} at task {task + 1}, step {step + 1}; "
        "try a smaller learning rate or strength, or training.clip_norm"
    )


def check_answers(strategy: object, row: int, accuracy: Array, loss: Array) -> None:
    """Refuse answers that are not numbers: their accuracy, and all that follows from it, means nothing.

    Args:
        strategy: whose.
        row: how many tasks were learned.
        accuracy: (K,) of the tasks; NaN for one that was not measured.
        loss: (K,) of the tasks.

    Raises:
        TrainingError: the loss of a task that was measured is not a number.
    """
    bad = np.flatnonzero(np.isnan(loss) & ~np.isnan(accuracy))
    if len(bad) > 0:
        raise TrainingError(
            f"Expected {type(strategy).__name__}.predict to return numbers, got nan on task {bad[0] + 1}, {row} tasks "
            "learned; try a smaller learning rate or strength, or training.clip_norm"
        )
