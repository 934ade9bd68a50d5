"""Can the network still learn? Dormant units, effective rank of the representation, size of the weights."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.errors import expect
from cl.measures.base import Measure, Quantity, activations, known, layer_names, stacked
from cl.strategy import Strategy
from cl.streams.base import Stream


class Plasticity(Measure):
    """Signs of the loss of plasticity, block by block, on the test samples of the task just trained.

    ``dormant_units``: share of units whose mean absolute activation is at most `threshold` times the mean over the
    block's units (Sokar et al. 2023, definition 1). ``effective_rank``: exp of the entropy of the normalised singular
    values of the activations (Roy and Vetterli 2007), as share of the block's width. ``weight_size``: mean absolute
    value of all weights (Dohare et al. 2024).

    Args:
        samples: test samples of the task, > 0 or None for all.
        threshold: >= 0; 0 counts units that are exactly silent.
    """

    cost: ClassVar[str] = "a forward pass over the samples of one task and a singular value decomposition a block"

    def __init__(self, samples: int | None = 500, threshold: float = 0.025) -> None:
        super().__init__(samples)
        expect(threshold >= 0, "measures.plasticity.threshold", ">= 0", threshold)
        self.threshold = threshold

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Look at the untrained network on the first task."""
        self.state = {"layers": layer_names(strategy), "dormant": [], "rank": [], "size": []}
        self._look(0, strategy, stream)

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Look at the network on task k."""
        self._look(k, strategy, stream)

    def _look(self, k: int, strategy: Strategy, stream: Stream) -> None:
        network = self.networks(strategy, stream, k)[k]
        test = self.test(stream, k)
        layers, sizes = ([] if network is None else activations(network, test, size) for size in (False, True))
        nothing = [float("nan")] * len(self.state["layers"])
        self.state["dormant"].append(torch.tensor([dormant(a, self.threshold) for a in sizes] or nothing))
        self.state["rank"].append(torch.tensor([effective_rank(a) / a.shape[1] for a in layers] or nothing))
        weights = torch.cat([p.detach().flatten().double().abs() for p in strategy.learner.parameters()])
        self.state["size"].append(float(weights.mean()))

    def result(self) -> dict[str, Quantity]:
        """Return (after task, layer) and (after task)."""
        if not self.state.get("size"):
            return {}
        axes, names = ("after task", "layer"), {"layer": self.state["layers"]}
        return known(
            dormant_units=Quantity(
                stacked(self.state["dormant"]),
                axes,
                "Share of units that hardly react to any sample of the task just trained.",
                "lower",
                "Sokar et al. 2023, definition 1",
                names=names,
            ),
            effective_rank=Quantity(
                stacked(self.state["rank"]),
                axes,
                "Number of directions the representation uses, as share of its width.",
                "higher",
                "Roy and Vetterli 2007",
                names=names,
            ),
            weight_size=Quantity(
                np.array(self.state["size"]),
                ("after task",),
                "Mean absolute weight; its growth goes with a loss of plasticity.",
                "lower",
                "Dohare et al. 2024",
                "",
            ),
        )


def dormant(activations: Tensor, threshold: float) -> float:
    """Return the share of units (columns) of activations (n, D) that are dormant; all of a block that is silent.

    >>> dormant(torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, -2.0]]), 0.025)  # scores 1, 0, 2
    0.3333333333333333
    """
    size = activations.double().abs().mean(0)
    return float((size <= threshold * size.mean()).double().mean())


def effective_rank(x: Tensor) -> float:
    """Return exp(-sum p log p) of the normalised singular values p of x (n, D): 1 to min(n, D); 0 for x = 0.

    >>> round(effective_rank(torch.eye(3)), 4), round(effective_rank(torch.ones(4, 3)), 4)
    (3.0, 1.0)
    """
    values = torch.linalg.svdvals(x.double())
    if not bool(values.sum() > 0):
        return 0.0
    p = values / values.sum()
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))
