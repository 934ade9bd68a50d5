"""Dark experience replay: the network's own earlier outputs are replayed instead of the labels."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import augmented, join, sample_fields
from cl.memory.base import Fields
from cl.objectives import IGNORE
from cl.strategy import Aux, Paper
from cl.streams.base import StreamInfo
from strategies.er import ER


class DER(ER):
    """Dark experience replay (Buzzega et al. 2020, eq. 5): CE(batch) + alpha || z - h(x) ||^2, (x, z) from a reservoir.

    z are the logits at the time a sample entered the reservoir; the square is a mean over samples and outputs, as in
    the authors' code. Of separate heads a sample's own is matched alone. With growing heads the target of a class that
    was not met yet is 0; the paper has one head with all outputs from the start, `learner.head=single`. With a label a
    step, z are the logits (T, C) of all steps, and those of steps that have a label are matched: the others (padding
    among them) are never asked for. In regression the outputs themselves are matched.

    Args:
        learner, info: see `Strategy`.
        memory_size, per, memory, groups, replay_batch, draw, recall_from: see `ER`; `replay_batch` is at least 1.
        alpha: weight of the replayed logits, >= 0 (the paper: 0.1 to 1).

    z are those of the image as it was augmented then, and are compared to those of the image augmented anew, as in the
    authors' code.

    Differs from the paper: batch and replay go through the network in one forward pass, see `ER`.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Dark Experience for General Continual Learning: a Strong, Simple Baseline",
        2020,
        "https://arxiv.org/abs/2004.07211",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}

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
        alpha: float = 1.0,
    ) -> None:
        super().__init__(learner, info, memory_size, per, memory, groups, replay_batch, draw, recall_from=recall_from)
        expect(replay_batch is None or replay_batch > 0, "strategy.replay_batch", "> 0 or null", replay_batch)
        expect(alpha >= 0, "strategy.alpha", ">= 0", alpha)
        self.alpha = alpha
        steps = sample_fields(info)["y"].shape if info.target == "steps" else ()
        self.memory.keep("logits", torch.zeros(*steps, info.n_classes))

    def loss(self, batch: Batch) -> tuple[Tensor, Aux]:
        """Return the loss (), and the logits (B, C) of the batch for the memory; one forward pass for both parts."""
        if self.alpha == 0:
            own = self.logits(batch.x, batch.task)
            return self.criterion(own, batch), self.noted(own, batch)
        fields, valid = self.drawn(batch, "logits")
        both, size = join(batch, fields, valid), len(batch.y)
        logits = self.logits(both.x, both.task)
        asked = self.asked(fields["logits"], fields["y"], fields["task"])
        squares = torch.where(asked, logits[size:] - fields["logits"], 0.0).square().flatten(1).sum(1)
        squares = squares / asked.flatten(1).sum(1).clamp_min(1)
        past = (squares * valid).sum() / valid.sum().clamp_min(1)
        return self.criterion(logits[:size], batch) + self.alpha * past, self.noted(logits[:size], batch)

    def noted(self, logits: Tensor, batch: Batch) -> Aux:
        """Return what the memory keeps of the logits (B, C) or (B, T, C) of a batch."""
        return {"logits": torch.where(self.asked(logits, batch.y, batch.task), logits.detach(), 0.0)}

    def asked(self, logits: Tensor, y: Tensor, task: Tensor) -> Tensor:
        """Return which logits (B, C) or (B, T, C) count: outputs that are allowed now, at steps with a label."""
        allowed = self.allowed(task)
        asked = torch.ones_like(logits, dtype=torch.bool)
        if self.info.target == "steps":
            asked = asked & (y != IGNORE)[..., None]
        if allowed is None:
            return asked
        return asked & (allowed[:, None] if allowed.dim() == 2 and logits.dim() == 3 else allowed)

    def drawn(self, batch: Batch, purpose: str) -> tuple[Fields, Tensor]:
        """Draw the samples of one part of the loss; see `Memory.sample`."""
        n = self.replay_batch or len(batch.y)
        fields, valid = self.memory.sample(n, batch.key, self.chances(), purpose=purpose)
        return augmented(self.info, fields, batch.key, purpose + self.memory.draws), valid

    def kept(self, batch: Batch, aux: Aux) -> Fields:
        """Return what is stored of a batch, its logits among it."""
        return super().kept(batch, aux) | {"logits": aux["logits"]}
