"""Gradient episodic memory (Lopez-Paz and Ranzato 2017): no step may raise the loss of any earlier task's memory."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import Exemplars, Ring, augmented, kept_inputs, sample_fields, slots
from cl.projection import cone, flatten, reference_gradients, unflatten
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

SHARES = ("fixed", "met")


class GEM(Strategy):
    """The gradient is projected onto the cone of directions that oppose no earlier task's gradient on its memory.

    Every task keeps samples in an equal share of the slots. Where the gradient opposes a memory's, a quadratic
    programme with one variable an earlier task finds the projection; with a margin it leans toward the past.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        memory_size: samples kept, >= the number of tasks in all.
        per: what `memory_size` is counted for, see `ER`.
        margin: lowest weight of each earlier task's gradient in the solution, >= 0 (the paper's gamma).
        shares: ``fixed``: a share for every task of the stream, with its last samples (the paper); ``met``: shares for
            the tasks met so far, with random samples chosen when a task ends (Hsu et al. 2018).
        ridge: added to the diagonal of the programme's matrix, which keeps it positive definite, > 0: .001 in the
            authors' code, which outweighs small gradients; None is 1e-9 of its trace, next to the paper's none.
    """

    paper = Paper("Gradient episodic memory for continual learning", 2017, "https://arxiv.org/abs/1706.08840")
    rebuilt: ClassVar[tuple[str, ...]] = ("k",)
    scenarios = ("task", "domain", "class")
    protects = True
    small: ClassVar[dict[str, Any]] = {"memory_size": 60}
    vectorizable = "it solves a quadratic programme at every step whose gradient opposes the past"

    memory: Ring | Exemplars

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        per: str = "all",
        margin: float = 0.5,
        shares: str = "fixed",
        ridge: float | None = None,
    ) -> None:
        super().__init__(learner, info)
        expect(margin >= 0, "strategy.margin", ">= 0", margin)
        expect(shares in SHARES, "strategy.shares", f"in {list(SHARES)}", shares)
        expect(ridge is None or ridge > 0, "strategy.ridge", "> 0 or null", ridge)
        self.margin, self.ridge = margin, ridge
        kind = Ring if shares == "fixed" else Exemplars
        self.memory = kind(slots(info, memory_size, per), sample_fields(info), info.n_tasks)
        self.k = 0

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Project the gradients onto the cone where they oppose an earlier task."""
        if self.k == 0:
            return grads
        g = flatten(grads, grads)
        past = torch.stack([flatten(self.reference(grads, batch, t), grads) for t in range(self.k)])
        if bool((past @ g >= 0).all()):
            return grads
        return unflatten(cone(g, past, self.margin, self.ridge), grads, grads)

    def reference(self, grads: dict[str, Tensor], batch: Batch, task: int) -> dict[str, Tensor]:
        """Return the gradients of the loss of an earlier task's memory."""
        if isinstance(self.memory, Exemplars):
            slots = self.memory.slots(task)
        else:
            share = self.memory.share
            slots = torch.arange(task * share, (task + 1) * share, device=batch.y.device)
            slots = slots[self.memory.filled[slots]]
        fields = augmented(self.info, self.memory.read(slots), batch.key, f"task/{task}{self.memory.draws}")
        recalled = Batch(fields["x"], fields["y"], fields["task"], batch.key)
        return reference_gradients(self, grads, recalled, torch.ones_like(slots, dtype=torch.bool))

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Keep the batch in the share of the present task, where every task has one."""
        if isinstance(self.memory, Ring):
            group = self.tasks_seen.expand(len(batch.y))
            self.memory.add({"x": kept_inputs(self.info, batch), "y": batch.y, "task": batch.task}, batch.key, group)

    def grow(self, k: int) -> None:
        """Note how many tasks came before."""
        self.k = k

    def end_task(self, task: Task) -> None:
        """Choose the task's samples, where the tasks met share the slots."""
        if isinstance(self.memory, Exemplars):
            self.memory.choose(task, self.info, "task", "random")
