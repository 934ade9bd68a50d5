"""MIR: replay the samples that the coming update would harm most."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import augmented
from cl.memory.base import Fields, repeated
from cl.projection import reference_gradients
from cl.strategy import Aux, Paper
from cl.streams.base import StreamInfo
from strategies.er import ER

COMPARISONS = ("present", "best")


class MIR(ER):
    """Maximally interfered retrieval (Aljundi et al. 2019, ER-MIR).

    A virtual step down the gradient of the incoming batch is taken; of the candidates drawn from memory, those whose
    loss it raises most are replayed: above their present loss (the paper's first rule), or above the least loss they
    had whenever they were candidates (its second; ln C before that, as the authors' code starts with logits of 0). Both
    losses are taken as in training, with the same dropout masks and with the candidates' own batch statistics; running
    statistics are left as they are.

    Args:
        learner, info: see `Strategy`.
        memory_size, per, memory, groups, replay_batch, draw, weighting, replay_weight, recall_from: see `ER`.
        candidates: samples drawn to choose from, at least as many as are replayed (the paper: 50 for 10).
        virtual_lr: step size of the virtual step, > 0 (the paper: the learning rate).
        compare: ``present`` (first rule) or ``best`` (second).

    Differs from the paper: the virtual step is one of plain gradient descent whatever the optimizer.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Online Continual Learning with Maximally Interfered Retrieval", 2019, "https://arxiv.org/abs/1908.04742"
    )

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        per: str = "all",
        memory: str = "reservoir",
        groups: str = "none",
        replay_batch: int | None = 10,
        draw: str = "uniform",
        weighting: str = "sum",
        replay_weight: float = 1.0,
        candidates: int = 50,
        virtual_lr: float = 0.1,
        recall_from: str = "all",
        compare: str = "present",
    ) -> None:
        super().__init__(
            learner, info, memory_size, per, memory, groups, replay_batch, draw, weighting, replay_weight, recall_from
        )
        expect(candidates >= (replay_batch or 1), "strategy.candidates", ">= strategy.replay_batch", candidates)
        expect(virtual_lr > 0, "strategy.virtual_lr", "> 0", virtual_lr)
        expect(compare in COMPARISONS, "strategy.compare", f"in {list(COMPARISONS)}", compare)
        self.candidates, self.virtual_lr, self.compare = candidates, virtual_lr, compare
        if compare == "best":
            self.memory.keep("best", torch.zeros(()))  # least loss so far

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the loss () of `ER` on the most harmed candidates, and what the candidates lose at present."""
        if self.replay_batch == 0:
            return super().loss(batch)
        fields, valid, aux = self.retrieve(batch)
        return self.replayed(batch, fields, valid), aux

    def recall(self, batch: Batch) -> tuple[Fields, Tensor]:
        """Return the candidates whose loss the virtual step raises most."""
        return self.retrieve(batch)[:2]

    def retrieve(self, batch: Batch) -> tuple[Fields, Tensor, Aux]:
        """Return what `recall` does, and of all candidates their slots and present losses."""
        chances = self.chances()
        chance = self.memory.filled.to(torch.float32) if chances is None else self.memory.filled * chances
        slots, valid = self.memory.distinct(self.candidates, batch.key, chance, "replay")
        fields = self.memory.read(repeated(slots, valid))
        fields = augmented(self.info, fields, batch.key, "replay" + self.memory.draws)
        drawn = Batch(fields["x"].to(batch.x.dtype), fields["y"], fields["task"], batch.key)
        here = {f"learner.{n}": p.detach() for n, p in self.learner.named_parameters()}
        slope = reference_gradients(self, here, batch, torch.ones_like(batch.task, dtype=torch.bool))
        there = {n: p - self.virtual_lr * slope[n] for n, p in here.items()}
        now = self.losses_at(here, drawn)
        before = torch.minimum(now, fields["best"]) if self.compare == "best" else now
        harm = self.losses_at(there, drawn) - before
        n = len(batch.y) if self.replay_batch is None else self.replay_batch
        worst = torch.where(valid, harm, -torch.inf).topk(min(n, len(valid))).indices
        chosen = {name: value[worst] for name, value in fields.items()}
        return chosen, valid[worst], {"candidates": slots, "losses": torch.where(valid, now, torch.inf)}

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Note the least losses of the candidates, where they are compared to those."""
        if self.compare == "best" and "candidates" in aux:
            best, slots = self.memory["best"], aux["candidates"]
            best[slots] = torch.minimum(best[slots], aux["losses"].to(best.dtype))

    def kept(self, batch: Batch, aux: Aux) -> Fields:
        """Return what is stored of a batch; no loss is known yet."""
        fields = super().kept(batch, aux)
        if self.compare == "best":
            start = math.inf if self.info.target == "real" else math.log(self.info.n_classes)
            fields["best"] = torch.full(batch.y.shape[:1], start, device=batch.y.device)
        return fields

    def losses_at(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each sample (B,) with other parameters, and the masks that the step's key draws."""
        statistics = {f"learner.{n}": b.clone() for n, b in self.learner.named_buffers()}
        losses: Tensor = functional_call(self, {**parameters, **statistics}, ("losses", batch))
        return losses

    def losses(self, batch: Batch) -> Tensor:
        """Return the loss of each sample: (B,)."""
        return self.per_sample(self.logits(batch.x, batch.task), batch)
