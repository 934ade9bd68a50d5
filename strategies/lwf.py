"""Learning without forgetting (Li and Hoiem 2016): the new network answers new inputs as the old one did."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.objectives import distillation_loss
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

WEIGHTINGS = ("sum", "tasks")
AVERAGES = ("sum", "mean")


class LwF(Strategy):
    """Distils a frozen copy of the learner, taken before each task, into it, on the inputs of the new task.

    With separate heads every earlier head is distilled by itself (the paper's method). With one head the outputs of
    the classes met before are distilled together (van de Ven et al. 2022; with growing heads the new classes may take
    part in the student's softmax, where the teacher gives them probability zero).

    Differs from the paper: the old network's answers are computed when needed instead of stored, which is the same for
    inputs that are not augmented; no warm-up of the new head alone; no extra weight decay.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the distillation, >= 0 (lambda_o in the paper).
        temperature: T > 0 of the softened outputs.
        weighting: ``sum`` adds strength x distillation to the loss (paper); ``tasks`` takes 1/k of the loss and
            (1 - 1/k) x strength of the distillation at task k = 1, 2... (van de Ven et al. 2022).
        heads: ``sum`` or ``mean`` over the earlier heads.
        outputs: ``sum`` over the outputs of the student that take part (the cross-entropy of both papers), or ``mean``,
            as in the code with which Hsu et al. 2018 and van de Ven and Tolias 2018 ran it: with one head of 2k active
            outputs the distillation then weighs 2k times less.
        squared_temperature: True multiplies the distillation by T^2 (Hinton et al. 2015).
        compete: True lets new classes take part in the student's softmax; growing heads only.
    """

    paper = Paper("Learning without forgetting", 2016, "https://arxiv.org/abs/1606.09282")
    rebuilt: ClassVar[tuple[str, ...]] = ("k",)
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    bare = True
    shards = True
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0, "weighting": "sum"}
    teacher: Learner

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 1.0,
        temperature: float = 2.0,
        weighting: str = "sum",
        heads: str = "sum",
        outputs: str = "sum",
        squared_temperature: bool = True,
        compete: bool = True,
    ) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(temperature > 0, "strategy.temperature", "> 0", temperature)
        expect(weighting in WEIGHTINGS, "strategy.weighting", f"in {list(WEIGHTINGS)}", weighting)
        expect(heads in AVERAGES, "strategy.heads", f"in {list(AVERAGES)}", heads)
        expect(outputs in AVERAGES, "strategy.outputs", f"in {list(AVERAGES)}", outputs)
        expect(info.target != "real", "stream", "with classes for distillation", info.target)
        self.strength, self.temperature, self.compete = strength, temperature, compete
        self.weighting, self.heads, self.outputs = weighting, heads, outputs
        self.scale = temperature**2 if squared_temperature else 1.0
        self.k = 0

    def distillation(self, x: Tensor, logits: Tensor) -> Tensor:
        """Return how far the logits (B, C) of inputs x are from the teacher's: ()."""
        with torch.no_grad():
            old = self.teacher(x)
        real = self.real(x)
        if self.head == "multi":
            losses = torch.stack([self.from_old(logits, old, real, own, own) for own in self.earlier()])
            per_sample = losses.sum(0) if self.heads == "sum" else losses.mean(0)
        elif self.head == "growing":
            before = self.earlier().any(0)
            per_sample = self.from_old(logits, old, real, self.active if self.compete else before, before)
        else:
            per_sample = self.from_old(logits, old, real, None, None)
        return self.scale * per_sample.mean()

    def from_old(
        self, logits: Tensor, old: Tensor, real: Tensor | None, among: Tensor | None, before: Tensor | None
    ) -> Tensor:
        """Return the distillation of each sample (B,) over outputs `among`, of which the old network had `before`."""
        loss = distillation_loss(logits, old, self.temperature, among, before, real)
        if self.outputs == "sum":
            return loss
        return loss / (self.info.n_classes if among is None else among.sum())

    def earlier(self) -> Tensor:
        """Return the outputs of each earlier task: (k, C) bool."""
        return self.task_classes[: self.k]

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the loss () of the new task plus the distillation of the old network."""
        logits = self.logits(batch.x, batch.task)
        new = self.criterion(logits, batch)
        if self.k == 0:
            return new
        share = 1 / (self.k + 1) if self.weighting == "tasks" else 1.0
        rest = 1 - share if self.weighting == "tasks" else 1.0
        return share * new + rest * self.strength * self.distillation(batch.x, logits)

    def grow(self, k: int) -> None:
        """Make room for the old network from the second task on."""
        self.k = k
        if k == 1:
            self.teacher = copy.deepcopy(self.learner).requires_grad_(False).eval()

    def begin_task(self, task: Task) -> None:
        """Freeze the network as it is now."""
        if self.k > 0:
            self.teacher.load_state_dict(self.learner.state_dict())

    def train(self, mode: bool = True) -> "LwF":
        """Set training mode for all but the old network."""
        super().train(mode)
        if self.k > 0:
            self.teacher.eval()
        return self
