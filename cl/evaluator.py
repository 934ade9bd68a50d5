"""Test accuracy and loss of all tasks; the only reader of test data."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cl import objectives
from cl.batch import Batch
from cl.build import Conditions
from cl.errors import ConfigError, expect
from cl.returned import scores_of
from cl.seeding import generator
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.streams.data import Data

WHICH = ("seen", "all", "first")
SPLITS = ("test", "validation")


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of evaluation.

    Attributes:
        batch_size: samples a forward pass.
        every: steps between two points of the within-task curve, or None for no curve.
        samples: test samples a task for the curve (a fixed subset), or None for all.
        tasks: tasks on the curve: ``seen`` so far (the present one included), ``all``, or the ``first``.
        online: True also measures every training batch just before it is learned (one more forward pass a step).
        split: ``test``, or ``validation`` for choosing hyper-parameters.
    """

    only_with: ClassVar[Conditions] = {name: {"every": "given"} for name in ("samples", "tasks")}
    batch_size: int = 1000
    every: int | None = None
    samples: int | None = 500
    tasks: str = "seen"
    split: str = "test"
    online: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "every", "samples"):
            value = getattr(self, name)
            expect(value is None or value > 0, f"evaluation.{name}", "> 0", value)
        expect(self.tasks in WHICH, "evaluation.tasks", f"in {list(WHICH)}", self.tasks)
        expect(self.split in SPLITS, "evaluation.split", f"in {list(SPLITS)}", self.split)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put all parts of a module into evaluation mode, and each back into its own mode after the block.

    `nn.Module.train` would take longer than a step of a small network on one sample.
    """
    modes = [(vars(part), part.training) for part in module.modules()]
    for attributes, _ in modes:
        attributes["training"] = False
    try:
        yield
    finally:
        for attributes, mode in modes:
            attributes["training"] = mode


class Evaluator:
    """Measures a strategy on the test (or validation) splits of a stream.

    Args:
        stream: the stream.
        options: see `EvaluationOptions`.

    Raises:
        ConfigError: validation data was asked for, and the stream has none.
    """

    def __init__(self, stream: Stream, options: EvaluationOptions) -> None:
        self.stream, self.options, self.info = stream, options, stream.info
        self.full = [self._split(k) for k in range(len(stream))]
        info = stream.info
        self.score = objectives.Score(info.target, info.codes, info.task_classes[0], self.full[0].device)
        self.fixed = [self._subset(k, data) for k, data in enumerate(self.full)] if options.every else []

    def _split(self, k: int) -> Data:
        if self.options.split == "test":
            return self.stream.test(k)
        validation = self.stream[k].validation
        if validation is None:
            raise ConfigError("Expected `stream.validation` > 0 when evaluation.split is validation, got 0")
        return validation

    def _subset(self, k: int, data: Data) -> Data:
        if self.options.samples is None or self.options.samples >= len(data):
            return data
        drawn = torch.randperm(len(data), generator=generator(self.info.seed, "evaluation", k))
        return data.subset(drawn[: self.options.samples].sort().values.to(data.device))

    def row(self, strategy: Strategy) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return accuracy (K,) and loss (K,) on every task's whole test split."""
        sums = self._measure(strategy, list(enumerate(self.full)))
        return sums[:, 0], sums[:, 1]

    def curve_tasks(self, k: int) -> list[int]:
        """Return the tasks on the within-task curve while task k is trained."""
        return list({"seen": range(k + 1), "all": range(len(self.stream)), "first": range(1)}[self.options.tasks])

    def point(self, strategy: Strategy, k: int) -> NDArray[np.float64]:
        """Return accuracy (K,) on the fixed subsets while task k is trained; NaN for tasks not asked for."""
        tasks = self.curve_tasks(k)
        accuracy = np.full(len(self.stream), np.nan)
        accuracy[tasks] = self._measure(strategy, [(j, self.fixed[j]) for j in tasks])[:, 0]
        return accuracy

    def before_learning(self, strategy: Strategy, batch: Batch, k: int) -> Tensor:
        """Return the accuracy () on a training batch of task k that is about to be learned."""
        with evaluating(strategy), torch.inference_mode():
            return self.score(self._scores(strategy, batch, k), batch.y).mean()

    def _scores(self, strategy: Strategy, batch: Batch, j: int) -> Tensor:
        """Return what the strategy answers to a batch of task j."""
        told = j if self.info.scenario == "task" else None
        found = strategy("predict", batch.x, told)
        return scores_of(strategy, found, len(batch.x), self.info.n_classes).float()

    def _measure(self, strategy: Strategy, tasks: list[tuple[int, Data]]) -> NDArray[np.float64]:
        """Return (mean score, mean loss) of each task: (len(tasks), 2); one transfer from the device for all."""
        with evaluating(strategy), torch.inference_mode():
            means = [self._task(strategy, j, data) for j, data in tasks]
        values: NDArray[np.float64] = torch.stack(means).double().cpu().numpy()
        return values

    def _task(self, strategy: Strategy, j: int, data: Data) -> Tensor:
        total = torch.zeros(2, device=data.device)
        for batch in data.in_order(self.options.batch_size):
            scores = self._scores(strategy, batch, j)
            score = self.score(scores, batch.y).sum()
            loss = objectives.per_sample_loss(scores, batch.y, self.info.target).sum()
            total += torch.stack([score, loss])
        return total / len(data)
