"""What a measure is: it looks at a strategy before the first task and after every task, and tells what it saw."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl.errors import expect
from cl.seeding import generator
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.streams.data import Data

Array = NDArray[np.float64]
BATCH = 250  # samples a forward pass; memory alone depends on it


@dataclass(frozen=True)
class Quantity:
    """Numbers with what a reader needs to understand them.

    Attributes:
        values: an array with one axis for each of `axes`; NaN where there is nothing.
        axes: what each axis counts, e.g. ``("after task", "task", "layer")``; ``after task`` begins with 0 = untrained.
        meaning: one sentence.
        better: ``higher``, ``lower``, or "" where neither is good in itself.
        source: who defined it.
        unit: ``fraction``, ``nats``, ...
        names: axis -> names of its entries, for axes that do not count from 0 or 1.
        summary: False where the mean over the axes means nothing.
    """

    values: Array
    axes: tuple[str, ...]
    meaning: str
    better: str
    source: str
    unit: str = "fraction"
    names: Mapping[str, list[str]] = field(default_factory=dict)
    summary: bool = True

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain types around the array, as they are saved."""
        return {**vars(self), "axes": list(self.axes), "names": dict(self.names)}


class Measure:
    """Base of all measures.

    What a measure remembers between tasks stands in `state`: tensors and plain types only, for it is part of the
    checkpoint. A measure draws nothing from the global random generator and leaves the strategy as it found it.

    Args:
        samples: samples of each task that it looks at (a fixed subset), or None for all.

    Class facts:
        cost: what it costs, in a sentence.
    """

    cost: ClassVar[str] = ""

    def __init__(self, samples: int | None) -> None:
        name = type(self).__name__.lower()
        expect(samples is None or samples > 0, f"measures.{name}.samples", "> 0 or null", samples)
        self.samples = samples
        self.state: dict[str, Any] = {}

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Look at the untrained strategy."""

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Look at the strategy after task k (from 0)."""

    def result(self) -> dict[str, Quantity]:
        """Return what was seen so far, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what to save."""
        return {name: list(value) if isinstance(value, list) else value for name, value in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.state = dict(state)

    def test(self, stream: Stream, k: int) -> Data:
        """Return the test samples of task k that this measure looks at."""
        return self._subset(stream.test(k), stream, k, "test")

    def train(self, stream: Stream, k: int) -> Data:
        """Return the training samples of task k that this measure looks at."""
        return self._subset(stream[k].train, stream, k, "train")

    def _subset(self, data: Data, stream: Stream, k: int, split: str) -> Data:
        if self.samples is None or self.samples >= len(data):
            return data
        drawn = torch.randperm(len(data), generator=generator(stream.info.seed, f"measure/{split}", k))
        return data.subset(drawn[: self.samples].sort().values.to(data.device))


def told(stream: Stream, j: int) -> int | None:
    """Return the task id that `predict` is given on task j."""
    return j if stream.info.scenario == "task" else None


@torch.no_grad()
def scores(strategy: Strategy, stream: Stream, data: Data, j: int) -> tuple[Tensor, Tensor]:
    """Return what the strategy predicts on samples of task j, (n, C) float64, and their labels (n,), on the CPU."""
    found = [(strategy("predict", b.x, told(stream, j)), b.y) for b in data.in_order(BATCH)]
    return torch.cat([s for s, _ in found]).double().cpu(), torch.cat([y for _, y in found]).cpu()


@torch.no_grad()
def activations(strategy: Strategy, data: Data) -> tuple[list[Tensor], Tensor]:
    """Return the output of every block of the learner, averaged over places or time, (n, width) each, and labels (n,).

    Float64 on the CPU.
    """
    found = [(strategy.learner.activations(b.x), b.y) for b in data.in_order(BATCH)]
    layers = [torch.cat([_flat(a[i]) for a, _ in found]).double().cpu() for i in range(len(found[0][0]))]
    return layers, torch.cat([y for _, y in found]).cpu()


def _flat(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.flatten(2).mean(2)


@torch.no_grad()
def features(strategy: Strategy, data: Data) -> tuple[Tensor, Tensor]:
    """Return what the head reads, (n, D) float64, and labels (n,), on the CPU."""
    found = [(strategy.learner.features(b.x), b.y) for b in data.in_order(BATCH)]
    return torch.cat([x for x, _ in found]).double().cpu(), torch.cat([y for _, y in found]).cpu()


def layer_names(strategy: Strategy) -> list[str]:
    """Return a name for every block of the learner."""
    return [f"block {i + 1}" for i in range(len(strategy.learner.blocks))]


def stacked(rows: list[Tensor]) -> Array:
    """Return rows of equal shape as one array."""
    return np.asarray(torch.stack([r.double() for r in rows]).numpy()) if rows else np.zeros((0,))
