"""GSS-greedy: keep samples whose gradients point in directions that the memory lacks."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from cl.batch import Batch
from cl.errors import expect
from cl.evaluator import evaluating
from cl.learners.base import Learner
from cl.memory import Memory, augmented, kept_inputs, sample_fields, slots
from cl.seeding import uniform
from cl.strategy import Aux, Paper
from cl.streams.base import StreamInfo
from strategies.er import ER

GATES = ("sample", "batch")
CHALLENGES = ("proportional", "scaled")
CHUNK = 16  # per-sample gradients held at once


class GSS(ER):
    """Gradient-based sample selection, greedy (Aljundi et al. 2019, algorithm 2).

    A sample's score C is one plus the largest cosine between its gradient and some gradients from memory. While there
    is room everything is stored. Then a newcomer with C < 1 challenges a stored sample i, drawn by its score, and takes
    its slot with probability C_i / (C_i + C).

    Args:
        learner, info: see `Strategy`.
        memory_size, per, replay_batch, weighting, replay_weight: see `ER`.
        comparisons: n, gradients from memory that a newcomer's is compared to (paper and code: 10).
        comparison_batch: samples whose mean gradient is one of them (the authors' code: 10; the paper writes samples).
        gate: ``batch``, a batch may challenge if the C of its mean gradient is below 1 (the authors' code, "for
            efficiency"), or ``sample``, each sample by its own C (paper).
        challenge: how stored samples are drawn: ``proportional`` to C_i (paper), or ``scaled``, proportional to
            C_i - min C and no sample twice in a batch (the authors' code).

    The authors' code takes a step on the batch and one on the replayed samples, three times for every batch:
    `weighting` sum and `training.updates` 3.

    Differs from the paper: the samples of a batch are judged together, against the memory as it was before the batch
    and the network as it is after the step; gradients are taken in evaluation mode, so that samples are independent.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Gradient based sample selection for online continual learning", 2019, "https://arxiv.org/abs/1903.08671"
    )

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        per: str = "all",
        replay_batch: int | None = None,
        weighting: str = "mean",
        replay_weight: float = 1.0,
        comparisons: int = 10,
        comparison_batch: int = 10,
        gate: str = "batch",
        challenge: str = "proportional",
    ) -> None:
        super().__init__(
            learner, info, memory_size, per, replay_batch=replay_batch, weighting=weighting, replay_weight=replay_weight
        )
        expect(comparisons > 0, "strategy.comparisons", "> 0", comparisons)
        capacity = slots(info, memory_size, per)
        fits = 0 < comparison_batch <= capacity
        expect(fits, "strategy.comparison_batch", f"in [1, {capacity}], the size of the memory", comparison_batch)
        expect(gate in GATES, "strategy.gate", f"in {list(GATES)}", gate)
        expect(challenge in CHALLENGES, "strategy.challenge", f"in {list(CHALLENGES)}", challenge)
        self.comparisons, self.comparison_batch = comparisons, comparison_batch
        self.gate, self.challenge = gate, challenge
        self.memory = Memory(capacity, {**sample_fields(info), "score": torch.zeros(())})

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Score the batch and let it into the memory by algorithm 2."""
        memory, size = self.memory, len(batch.y)
        score, below = self.scores(batch)
        count = memory.filled.sum()
        free = count + torch.arange(size, device=count.device)
        rival = self.rivals(size, batch.key)
        rivals_score = memory["score"][rival]
        wins = uniform(batch.key, (size,), "duel") * (rivals_score + score) < rivals_score
        room = free < memory.capacity
        values = {"x": kept_inputs(self.info, batch), "y": batch.y, "task": batch.task, "score": score}
        memory.write(torch.where(room, free, rival), room | (wins & below), values)

    def rivals(self, size: int, key: Tensor) -> Tensor:
        """Draw the stored samples that are challenged: (size,) slots."""
        score, filled = self.memory["score"], self.memory.filled
        if self.challenge == "proportional":
            return self.memory.draw(size, key, score * filled, "rival")
        low = torch.where(filled, score, torch.inf).amin()
        chance = torch.where(filled, score - low, 0.0)
        waiting = torch.where(chance > 0, -torch.log1p(-uniform(key, score.shape, "rival")) / chance, torch.inf)
        order = waiting.argsort()  # successive draws (Efraimidis and Spirakis 2006)
        return order[torch.arange(size, device=key.device) % len(order)]

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return one plus the largest cosine with gradients from memory, (B,), and whose C is below 1, (B,) bool."""
        with evaluating(self.learner):
            return self._scores(batch)

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        groups = max(1, min(self.comparisons, self.memory.capacity // self.comparison_batch))
        fields, valid = self.memory.sample(groups * self.comparison_batch, batch.key, purpose="comparisons")
        fields = augmented(self.info, fields, batch.key, "comparisons" + self.memory.draws)
        drawn = (fields["x"].to(batch.x.dtype), fields["y"], fields["task"], valid)
        parts = [torch.unflatten(t, 0, (groups, self.comparison_batch)) for t in drawn]
        reference: Any = vmap(self.direction, chunk_size=CHUNK)(*parts)
        present = parts[3].any(1)

        def largest(*samples: Tensor) -> Tensor:
            return torch.where(present, reference @ self.direction(*samples), -1.0).amax()

        own = (batch.x, batch.y, batch.task, torch.ones(len(batch.y), dtype=torch.bool, device=batch.y.device))
        found: Any = vmap(largest, chunk_size=CHUNK)(*(t[:, None] for t in own))
        judged = largest(*own).expand(len(found)) if self.gate == "batch" else found
        # The first samples have nothing to be compared to; the authors' code gives them a cosine of 0.1.
        return torch.where(present.any(), 1 + found, 1.1), present.any() & (judged < 0)

    def direction(self, x: Tensor, y: Tensor, task: Tensor, real: Tensor) -> Tensor:
        """Return the unit gradient (P,) of the mean loss of the `real` ones of samples x (n, *input), y, task (n,)."""
        samples = Batch(x, y, task, self.tasks_seen)

        def loss(parameters: dict[str, Tensor]) -> Tensor:
            logits: Any = functional_call(self, parameters, ("logits", samples.x, samples.task))
            return (self.per_sample(logits, samples) * real).sum() / real.sum().clamp_min(1)

        here = {f"learner.{n}": p.detach() for n, p in self.learner.named_parameters()}
        return F.normalize(torch.cat([g.flatten() for g in grad(loss)(here).values()]), dim=0)
