"""How long and in which order a task is trained: options, and batches as a pure function of the seed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cl.errors import ConfigError, expect
from cl.seeding import generator

OPTIMIZER_STATES = ("keep", "reset")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training loop, the same for every strategy.

    Attributes:
        epochs: passes over a task's training data; exactly one of `epochs` and `steps` is given.
        steps: optimisation steps a task.
        batch_size: samples a step.
        updates: steps on each batch before the next one comes; memories draw anew at every step and take the batch in
            after the last.
        drop_last: True leaves out an epoch's last, smaller batch.
        shuffle: False keeps the stored order.
        optimizer_state: ``keep`` moments and counters between tasks, or ``reset`` them.
        clip_norm: largest norm of the whole gradient, or None.
        patience: early stopping: epochs without a better validation loss before a task ends, or None.
        compile: True compiles the loss, its gradient and what the strategy does in a step (torch.compile); a line tells
            what cannot be compiled.
    """

    epochs: int | None = 1
    steps: int | None = None
    batch_size: int = 128
    updates: int = 1
    drop_last: bool = False
    shuffle: bool = True
    optimizer_state: str = "keep"
    clip_norm: float | None = None
    patience: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError(
                f"Expected exactly one of `training.epochs` and `training.steps`, got {self.epochs} and {self.steps}; "
                "set the other to null"
            )
        for name in ("epochs", "steps", "batch_size", "updates", "patience"):
            value = getattr(self, name)
            expect(value is None or value > 0, f"training.{name}", "> 0", value)
        expect(self.clip_norm is None or self.clip_norm > 0, "training.clip_norm", "> 0", self.clip_norm)
        expect(
            self.optimizer_state in OPTIMIZER_STATES,
            "training.optimizer_state",
            f"in {list(OPTIMIZER_STATES)}",
            self.optimizer_state,
        )


class Schedule:
    """Which samples every step of a task sees.

    Args:
        n: samples in an epoch.
        options: see `TrainingOptions`.
        seed: root seed.
        task: index of the task.
        tasks: factor on `options.steps` (joint training of K tasks takes K times the steps).
        batch_scale: factor on the batch size.
    """

    def __init__(
        self, n: int, options: TrainingOptions, seed: int, task: int, tasks: int = 1, batch_scale: int = 1
    ) -> None:
        self.n, self.options, self.seed, self.task = n, options, seed, task
        self.batch_size = min(options.batch_size * batch_scale, max(n, 1))
        whole = n // self.batch_size if options.drop_last else math.ceil(n / self.batch_size)
        self.batches_per_epoch, self.updates = whole, options.updates
        self.steps_per_epoch = whole * options.updates
        if n == 0:
            self.steps = 0
        elif options.steps is not None:
            self.steps = options.steps * tasks
        else:
            self.steps = self.steps_per_epoch * (options.epochs or 0)

    def order(self, epoch: int) -> Tensor:
        """Return the order of samples in an epoch: (n,) int64 on the CPU."""
        if not self.options.shuffle:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=generator(self.seed, "order", self.task, epoch))

    def begins_batch(self, step: int) -> bool:
        """Whether a step is the first on its batch."""
        return step % self.updates == 0

    def ends_batch(self, step: int) -> bool:
        """Whether a step is the last on its batch."""
        return (step + 1) % self.updates == 0 or step + 1 == self.steps

    def size(self, step: int) -> int:
        """Return how many samples a step sees."""
        batch = step % self.steps_per_epoch // self.updates
        return min(self.batch_size, self.n - batch * self.batch_size)

    def positions(self, first: int, last: int, device: torch.device) -> Iterator[Tensor]:
        """Yield the sample positions (B,) of batches `first` to `last` - 1 of the task."""
        batch = first
        while batch < last:
            epoch, within = divmod(batch, self.batches_per_epoch)
            order = self.order(epoch).to(device, non_blocking=True)
            for i in range(within, min(self.batches_per_epoch, within + last - batch)):
                yield order[i * self.batch_size : (i + 1) * self.batch_size]
                batch += 1
