"""MIR: replay the samples that the coming update would harm most."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory.base import Fields
from cl.strategy import Paper
from cl.streams.base import StreamInfo
from strategies.er import ER


class MIR(ER):
    """Maximally interfered retrieval (Aljundi et al. 2019, ER-MIR).

    A virtual step down the gradient of the incoming batch is taken; of the candidates drawn from memory, those whose
    loss it raises most are replayed.

    Args:
        learner, info: see `Strategy`.
        memory_size, memory, groups, replay_batch, draw, weighting, replay_weight, recall_from: see `ER`.
        candidates: samples drawn to choose from, at least as many as are replayed (the paper: 50 for 10).
        virtual_lr: step size of the virtual step, > 0 (the paper: the learning rate).

    Differs from the paper: of its two rules the first alone (loss after minus loss before; the other compares to each
    sample's best loss so far); the virtual step is one of plain gradient descent whatever the optimizer.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Online Continual Learning with Maximally Interfered Retrieval", 2019, "https://arxiv.org/abs/1908.04742"
    )

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        memory: str = "reservoir",
        groups: str = "none",
        replay_batch: int | None = 10,
        draw: str = "uniform",
        weighting: str = "sum",
        replay_weight: float = 1.0,
        candidates: int = 50,
        virtual_lr: float = 0.1,
        recall_from: str = "all",
    ) -> None:
        super().__init__(
            learner, info, memory_size, memory, groups, replay_batch, draw, weighting, replay_weight, recall_from
        )
        expect(candidates >= (replay_batch or 1), "strategy.candidates", ">= strategy.replay_batch", candidates)
        expect(virtual_lr > 0, "strategy.virtual_lr", "> 0", virtual_lr)
        self.candidates, self.virtual_lr = candidates, virtual_lr

    def recall(self, batch: Batch) -> tuple[Fields, Tensor]:
        """Return the candidates whose loss the virtual step raises most."""
        fields, valid = self.memory.sample(self.candidates, batch.key, self.chances())
        drawn = Batch(fields["x"].to(batch.x.dtype), fields["y"], fields["task"], batch.key)
        here = {f"learner.{n}": p.detach() for n, p in self.learner.named_parameters()}
        slope = grad(lambda p: self.losses_at(p, batch).mean())(here)
        there = {n: p - self.virtual_lr * slope[n] for n, p in here.items()}
        harm = self.losses_at(there, drawn) - self.losses_at(here, drawn)
        n = len(batch.y) if self.replay_batch is None else self.replay_batch
        worst = torch.where(valid, harm, -torch.inf).topk(min(n, len(valid))).indices
        return {name: value[worst] for name, value in fields.items()}, valid[worst]

    def losses_at(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each sample (B,) with other parameters."""
        logits: Any = functional_call(self, dict(parameters), ("logits", batch.x, batch.task))
        return self.per_sample(logits, batch)
