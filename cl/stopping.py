"""Early stopping on validation data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.batch import Batch
from cl.returned import returned
from cl.strategy import Strategy
from cl.streams.data import Data


class EarlyStopping:
    """Ends a task when the validation loss has not improved for `patience` epochs.

    Args:
        patience: epochs to wait, or None for never.
        splits: what is held out of the tasks that are trained on; none never ends a task.
        strategy: the strategy to measure.
    """

    def __init__(self, patience: int | None, splits: Sequence[Data], strategy: Strategy) -> None:
        self.patience, self.splits, self.strategy = patience, splits, strategy
        self.best, self.waited = float("inf"), 0

    def should_stop(self) -> bool:
        """Measure the validation loss at the end of an epoch and decide."""
        if self.patience is None or not self.splits:
            return False
        self.strategy.eval()
        with torch.no_grad():
            batches = (batch for split in self.splits for batch in split.in_order(1000))
            total = sum(float(self._losses(batch).sum()) for batch in batches)
        self.strategy.train()
        loss = total / sum(len(split) for split in self.splits)
        better = loss < self.best
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        return self.waited >= self.patience

    def _losses(self, batch: Batch) -> Tensor:
        found: object = self.strategy.validation_loss(batch)
        if not isinstance(found, Tensor) or found.shape != batch.y.shape[:1]:
            raise returned(self.strategy, "validation_loss", f"a tensor of {len(batch.y)} losses", found)
        return found
