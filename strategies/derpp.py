"""Dark experience replay ++: replayed logits, and replayed labels beside them."""

from typing import Any, ClassVar

from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory.base import recalled
from cl.strategy import Aux
from cl.streams.base import StreamInfo
from strategies.der import DER


class DERpp(DER):
    """DER++ (Buzzega et al. 2020, eq. 6): DER's loss + beta CE(y', h(x')) for a second draw (x', y') of the reservoir.

    Args:
        learner, info, memory_size, per, memory, groups, replay_batch, draw, recall_from, alpha: see `DER`.
        beta: weight of the replayed labels, >= 0 (the paper: 0.5 or 1).
    """

    neutral: ClassVar[dict[str, Any] | None] = {"alpha": 0.0, "beta": 0.0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        per: str = "all",
        memory: str = "reservoir",
        groups: str = "none",
        replay_batch: int | None = None,
        draw: str = "uniform",
        recall_from: str = "all",
        alpha: float = 0.5,
        beta: float = 0.5,
    ) -> None:
        super().__init__(learner, info, memory_size, per, memory, groups, replay_batch, draw, recall_from, alpha)
        expect(beta >= 0, "strategy.beta", ">= 0", beta)
        self.beta = beta

    def loss(self, batch: Batch) -> tuple[Tensor, Aux]:
        """Return DER's loss () plus that of the replayed labels, and DER's aux."""
        result = super().loss(batch)
        if self.beta == 0:
            return result
        fields, valid = self.drawn(batch, "labels")
        replay = recalled(batch, fields, valid)
        losses = self.per_sample(self.logits(replay.x, replay.task), replay)
        return result[0] + self.beta * (losses * valid).sum() / valid.sum().clamp_min(1), result[1]
