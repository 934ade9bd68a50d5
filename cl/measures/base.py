"""What a measure is: it looks at a strategy before the first task and around every task, and tells what it saw."""

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl.errors import expect
from cl.learners import readout
from cl.learners.sequence import SequenceLearner
from cl.seeding import generator
from cl.strategy import Network, Strategy
from cl.streams.base import Stream
from cl.streams.data import Data

Array = NDArray[np.float64]
log = logging.getLogger(__name__)
OVER_RUN = ("task trained", "after task")  # axes that count what was measured when
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
        key: what errors call it, its key in `measures`; "": the name of its class in lower case.
    """

    cost: ClassVar[str] = ""
    key: ClassVar[str] = ""

    def __init__(self, samples: int | None) -> None:
        name = self.key or type(self).__name__.lower()
        expect(samples is None or samples > 0, f"measures.{name}.samples", "> 0 or null", samples)
        self.samples = samples
        self.state: dict[str, Any] = {}
        self._noted = False

    def check(self, strategy: Strategy) -> None:
        """Refuse, before a run begins, a strategy or learner that it cannot look at, by a ConfigError."""

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Look at the untrained strategy."""

    def before_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Look at the strategy when it has grown for task k (from 0), before `Strategy.begin_task`."""

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

    def networks(self, strategy: Strategy, stream: Stream, k: int) -> list[Network | None]:
        """Return the network that the strategy asks about each of tasks 0 to k; None where no learner stands for it.

        A measure of the inside leaves out (NaN) what it cannot look into; a warning says so once.
        """
        found = [strategy.network(told(stream, j)) for j in range(k + 1)]
        if None in found and not self._noted:
            who, what = type(strategy).__name__, type(self).__name__
            log.warning("%s answers with more than its learner: %s leaves out what it cannot see", who, what)
            self._noted = True
        return found

    def shared(self, strategy: Strategy, stream: Stream, k: int) -> bool:
        """Return True if tasks 0 to k are asked of the learner itself: what is done to it reaches all of them."""
        found = self.networks(strategy, stream, k)
        return all(network is not None and network.learner is strategy.learner for network in found)

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
def activations(network: Network, data: Data, size: bool = False) -> list[Tensor]:
    """Return the output of every block, averaged over places or real time steps: (n, width) each, float64, CPU.

    Args:
        network: whose outputs.
        data: on which samples.
        size: True averages absolute values.
    """
    found = [_blocks(network, b.x, size) for b in data.in_order(BATCH)]
    return [torch.cat(layer).double().cpu() for layer in zip(*found, strict=True)]


def _blocks(network: Network, x: Tensor, size: bool) -> list[Tensor]:
    learner = network.learner
    if isinstance(learner, SequenceLearner):
        outputs, real = learner.run(x, network.gates)
        return [readout.mean((a.abs() if size else a).transpose(1, 2), real) for a in outputs]
    found = [a.abs() if size else a for a in learner.activations(x, network.gates)]
    return [a if a.dim() == 2 else a.flatten(2).mean(2) for a in found]


@torch.no_grad()
def features(network: Network, data: Data) -> tuple[Tensor, Tensor]:
    """Return what the head reads, (n, D) float64, and labels (n,), on the CPU."""
    found = [(network.learner.features(b.x, network.gates), b.y) for b in data.in_order(BATCH)]
    return torch.cat([x for x, _ in found]).double().cpu(), torch.cat([y for _, y in found]).cpu()


def layer_names(strategy: Strategy) -> list[str]:
    """Return a name for every block of the learner."""
    return [f"block {i + 1}" for i in range(len(strategy.learner.blocks))]


def stacked(rows: list[Tensor]) -> Array:
    """Return rows of equal shape as one array."""
    return np.asarray(torch.stack([r.double() for r in rows]).numpy()) if rows else np.zeros((0,))


def known(**quantities: Quantity) -> dict[str, Quantity]:
    """Return the quantities of which there is a number; after the last task, where they are told task after task."""
    newest = {n: q.values[-1:] if q.axes[0] in OVER_RUN else q.values for n, q in quantities.items()}
    return {name: quantity for name, quantity in quantities.items() if np.isfinite(newest[name]).any()}


def merged(measures: Iterable[Measure]) -> dict[str, dict[str, Any]]:
    """Return what all measures found, by name; a name that is taken already gets a number (`drift_2`) and a warning."""
    found: dict[str, dict[str, Any]] = {}
    for measure in measures:
        for name, quantity in measure.result().items():
            free = name if name not in found else next(n for i in count(2) if (n := f"{name}_{i}") not in found)
            if free != name:
                warnings.warn(
                    f"two measures found a `{name}`; that of {type(measure).__name__} is {free}", stacklevel=2
                )
            found[free] = quantity.plain()
    return found
