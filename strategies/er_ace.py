"""ER-ACE: new classes are learned among themselves, so that they do not push old ones away; replay ranks them all."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import join
from cl.objectives import mask_logits
from cl.strategy import Aux, Paper
from cl.streams.base import StreamInfo
from strategies.er import ER


class ERACE(ER):
    """Asymmetric cross-entropy (Caccia et al. 2022).

    The loss of the incoming batch runs over the classes in that batch alone, the loss of the replayed samples over all
    classes the scenario allows: L = L_ce(incoming, C_current) + w L_ce(replay, C_old and C_current). With a label
    a step, C_current are the labels of all steps of the batch.

    Args:
        learner, info: see `Strategy`.
        memory_size, memory, groups, replay_batch, draw: see `ER`; `replay_batch` is at least 1.
        replay_weight: w, >= 0 (the paper: 1).

    Differs from the paper: inputs are stored as the network saw them, so that augmentation is not drawn anew.
    """

    paper: ClassVar[Paper | None] = Paper(
        "New Insights on Reducing Abrupt Representation Change in Online Continual Learning",
        2022,
        "https://arxiv.org/abs/2104.05025",
    )
    neutral: ClassVar[dict[str, Any] | None] = None

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        memory: str = "reservoir",
        groups: str = "none",
        replay_batch: int | None = None,
        draw: str = "uniform",
        replay_weight: float = 1.0,
    ) -> None:
        super().__init__(learner, info, memory_size, memory, groups, replay_batch, draw, "sum", replay_weight)
        expect(replay_batch is None or replay_batch > 0, "strategy.replay_batch", "> 0 or null", replay_batch)
        expect(info.target != "real", "stream", "with classes (er_ace limits a cross-entropy to some)", info.target)

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the asymmetric loss ()."""
        fields, valid = self.recall(batch)
        both, size = join(batch, fields), len(batch.y)
        logits = self.logits(both.x, both.task)
        current = (batch.y.flatten()[:, None] == torch.arange(self.info.n_classes, device=batch.y.device)).any(0)
        among = current | (torch.arange(len(both.y), device=current.device) >= size)[:, None]
        losses = self.per_sample(mask_logits(logits, among), both)
        return losses[:size].mean() + self.replay_weight * (losses[size:] * valid).sum() / valid.sum().clamp_min(1)
