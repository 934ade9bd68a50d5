"""L2 Init: regularise towards the initial weights, to keep the network able to learn."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.learners.base import Learner
from cl.parameters import PerParameter
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo

NORMS = ("l2", "l1")


class L2Init(Strategy):
    """loss + strength * ||theta - theta_0||^2, theta_0 the weights as initialised.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0; the paper tunes it over 1e-2 to 1e-5.
        norm: ``l2`` (squared) or ``l1`` (the paper's ablation).
    """

    paper = Paper(
        "Maintaining plasticity in continual learning via regenerative regularization",
        2023,
        "https://arxiv.org/abs/2308.11958",
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {"strength": 0.0}

    def __init__(self, learner: Learner, info: StreamInfo, strength: float = 1e-3, norm: str = "l2") -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(norm in NORMS, "strategy.norm", f"in {list(NORMS)}", norm)
        self.strength, self.norm = strength, norm
        self.start = PerParameter(learner, start="values")

    def penalty(self) -> Tensor:
        """Return the weighted distance () to the initial weights."""
        changes = [p - start for p, start in self.start.pairs(self.learner)]
        distances = [(d.square() if self.norm == "l2" else d.abs()).sum() for d in changes]
        return self.strength * torch.stack(distances).sum()
