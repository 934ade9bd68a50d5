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

COMPETE = ("batch", "unseen")


class ERACE(ER):
    """Asymmetric cross-entropy (Caccia et al. 2022).

    The loss of the incoming batch runs over the classes in that batch alone, the loss of the replayed samples over all
    classes the scenario allows: L = L_ce(incoming, C_current) + w L_ce(replay, C_old and C_current). With a label
    a step, C_current are the labels of all steps of the batch.

    Args:
        learner, info: see `Strategy`.
        memory_size, per, memory, groups, replay_batch, draw, recall_from: see `ER`; `replay_batch` is at least 1.
        replay_weight: w, >= 0 (the paper: 1).
        compete: which classes the incoming samples are ranked among: those of the ``batch`` (the paper's formula), or
            also the ``unseen``, from the highest label seen so far on (the authors' code); outputs of a growing head
            that no task has used yet take no part, as ever (the authors' head has all from the start).

    Differs from the paper: batch and replay go through the network in one forward pass, see `ER`; the authors' code
    classifies by 10 times the cosine of features and weights, here the learner's head is linear.
    """

    paper: ClassVar[Paper | None] = Paper(
        "New Insights on Reducing Abrupt Representation Change in Online Continual Learning",
        2022,
        "https://arxiv.org/abs/2104.05025",
    )
    neutral: ClassVar[dict[str, Any] | None] = None
    highest: Tensor

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
        replay_weight: float = 1.0,
        compete: str = "batch",
        recall_from: str = "all",
    ) -> None:
        super().__init__(
            learner, info, memory_size, per, memory, groups, replay_batch, draw, "sum", replay_weight, recall_from
        )
        expect(replay_batch is None or replay_batch > 0, "strategy.replay_batch", "> 0 or null", replay_batch)
        expect(info.target != "real", "stream", "with classes (er_ace limits a cross-entropy to some)", info.target)

        expect(compete in COMPETE, "strategy.compete", f"in {list(COMPETE)}", compete)
        self.compete = compete
        if compete == "unseen":
            self.register_buffer("highest", torch.zeros((), dtype=torch.long))  # label seen so far

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the asymmetric loss ()."""
        fields, valid = self.recall(batch)
        both, size = join(batch, fields, valid), len(batch.y)
        logits = self.logits(both.x, both.task)
        outputs = torch.arange(self.info.n_classes, device=batch.y.device)
        current = (batch.y.flatten()[:, None] == outputs).any(0)
        if self.compete == "unseen":
            current = current | (outputs >= torch.maximum(self.highest, batch.y.amax()))
        among = current | (torch.arange(len(both.y), device=current.device) >= size)[:, None]
        losses = self.per_sample(mask_logits(logits, among), both)
        return losses[:size].mean() + self.replay_weight * (losses[size:] * valid).sum() / valid.sum().clamp_min(1)

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Offer the batch to the memory, and note its highest label."""
        super().remember(batch, aux)
        if self.compete == "unseen":
            self.highest.copy_(torch.maximum(self.highest, batch.y.amax()))
