"""Averaged GEM (Chaudhry et al. 2019): no step may raise the mean loss of a batch from memory."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import Memory, Reservoir, Ring, sample_fields
from cl.projection import half_space, reference_gradients
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo

MEMORIES = ("ring", "reservoir")


class AGEM(Strategy):
    """Where a gradient opposes that of a batch of earlier tasks, its part along that one is taken away.

    g <- g - (g . r / r . r) r if g . r < 0, with r the gradient of the mean loss of a batch drawn from the memories of
    all earlier tasks; every task has an equal share of the slots. In the online scenario, where tasks are not told, the
    batch comes from all that was seen.

    Differs from the paper: the ring holds the last samples of each task, the authors' those of each class within a
    task; a step recalls distinct samples.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        memory_size: samples kept in all, >= the number of tasks.
        memory: ``ring`` (the last samples of each task) or ``reservoir`` (a uniform sample of each).
        reference_batch: samples of the reference gradient, >= 0; None as many as the incoming batch, 0 is fine-tuning.
    """

    paper = Paper("Efficient lifelong learning with A-GEM", 2019, "https://arxiv.org/abs/1812.00420")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"reference_batch": 0}
    small: ClassVar[dict[str, Any]] = {"memory_size": 60}
    memory: Memory

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        memory: str = "ring",
        reference_batch: int | None = 256,
    ) -> None:
        super().__init__(learner, info)
        expect(memory in MEMORIES, "strategy.memory", f"in {list(MEMORIES)}", memory)
        expect(reference_batch is None or reference_batch >= 0, "strategy.reference_batch", ">= 0", reference_batch)
        self.reference_batch = reference_batch
        self.groups = 1 if info.scenario == "online" else info.n_tasks
        self.memory = (Ring if memory == "ring" else Reservoir)(memory_size, sample_fields(info), self.groups)

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Project the gradients so that they do not oppose those of the earlier tasks."""
        n = len(batch.y) if self.reference_batch is None else self.reference_batch
        if n == 0:
            return grads
        fields, valid = self.memory.sample(n, batch.key, self.earlier())
        recalled = Batch(fields["x"], fields["y"], fields["task"], batch.key)
        return half_space(grads, reference_gradients(self, grads, recalled, valid))

    def earlier(self) -> Tensor | None:
        """Return 1 for the slots of earlier tasks, 0 for the others: (M,); None where tasks are not told."""
        if self.groups == 1:
            return None
        slots = torch.arange(self.memory.capacity, device=self.tasks_seen.device)
        return (slots // (self.memory.capacity // self.groups) < self.tasks_seen).float()

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Offer the batch to the memory of the present task."""
        group = self.tasks_seen.expand(len(batch.y))
        self.memory.add({"x": batch.x, "y": batch.y, "task": batch.task}, batch.key, group)
