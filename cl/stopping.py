"""Early stopping on validation data."""

import torch

from cl.strategy import Strategy
from cl.streams.base import Task


class EarlyStopping:
    """Ends a task when the validation loss has not improved for `patience` epochs.

    Args:
        patience: epochs to wait, or None for never.
        task: the task; it needs a validation split.
        strategy: the strategy to measure.
    """

    def __init__(self, patience: int | None, task: Task, strategy: Strategy) -> None:
        self.patience, self.task, self.strategy = patience, task, strategy
        self.best, self.waited = float("inf"), 0

    def should_stop(self) -> bool:
        """Measure the validation loss at the end of an epoch and decide."""
        if self.patience is None or self.task.validation is None:
            return False
        self.strategy.eval()
        with torch.no_grad():
            total = sum(
                float(self.strategy.per_sample(self.strategy.logits(b.x, b.task), b).sum())
                for b in self.task.validation.in_order(1000)
            )
        self.strategy.train()
        loss = total / len(self.task.validation)
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(loss, self.best)
        return self.waited >= self.patience
