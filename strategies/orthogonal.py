"""Soft orthogonality: weight matrices near orthogonal ones, so that signals neither fade nor grow over distance."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo

WEIGHTS = ("all", "recurrent")


class Orthogonal(Strategy):
    """loss + strength * sum_W ||W W^T - I||_F^2 (W^T W where W has more rows than columns).

    A step of a recurrent network multiplies its state by a matrix, and the gradient by its transpose; an orthogonal
    one keeps the length of both (Saxe et al. 2014). Ehret et al. 2021 add this penalty to the methods they compare.

    Differs from the paper: none for ``recurrent``, its soft constraint (the paper has hard ones too); ``all`` is the
    soft orthogonality (SO) of Bansal, Chen and Wang 2018.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0; Ehret et al. use .01 to 10.
        weights: ``all`` matrices of the blocks, filters flattened, or ``recurrent``: those from state to state, a
            square block a gate.

    Raises:
        ConfigError: ``recurrent`` weights of a learner that has none.
    """

    paper = Paper(
        "On orthogonality and learning recurrent networks with long term dependencies",
        2017,
        "https://arxiv.org/abs/1702.00071",
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {"strength": 0.0}

    def __init__(self, learner: Learner, info: StreamInfo, strength: float = 0.01, weights: str = "all") -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(weights in WEIGHTS, "strategy.weights", f"in {list(WEIGHTS)}", weights)
        self.strength, self.weights = strength, weights
        kind = type(learner).__name__
        if any(p.dim() > 1 for p in learner.blocks.parameters()):
            rule = f"'all' for {kind}, which has no weights from state to state"
            expect(len(self.matrices()) > 0, "strategy.weights", rule, weights)
        else:
            raise ConfigError(f"Expected `learner` with hidden layers for orthogonal, got {kind} without any")

    def matrices(self) -> list[Tensor]:
        """Return the weights that are kept near orthogonal, each (rows, columns)."""
        found: list[Tensor] = []
        for name, p in self.learner.blocks.named_parameters():
            if "weight_hh" in name:
                found += torch.split(p, p.shape[1])  # the gates of LSTM and GRU stand below each other
            elif self.weights == "all" and p.dim() > 1:
                found.append(p.flatten(1))
        return found

    def penalty(self) -> Tensor:
        """Return the weighted distance () of the matrices from orthogonal ones."""
        distances = []
        for w in self.matrices():
            product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
            distances.append((product - torch.eye(len(product), device=w.device, dtype=w.dtype)).square().sum())
        return self.strength * torch.stack(distances).sum()
