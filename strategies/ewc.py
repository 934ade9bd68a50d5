"""Elastic weight consolidation (Kirkpatrick et al. 2017): weights that mattered to earlier tasks become stiff."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.importance import FISHERS, Quadratic, fisher
from cl.learners.base import Learner
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo, Task


class EWC(Strategy):
    """One quadratic penalty per earlier task, weighted by the diagonal of the Fisher information at its end.

    loss = cross-entropy + strength * sum_tasks sum_i F_i (theta_i - theta*_i)^2

    The Fisher information is a mean over single samples, so a strength means the same at every batch size. The sum over
    tasks is kept as one quadratic form, which is exact (see `cl.importance.Quadratic`).

    Differs from the paper: none; the paper's lambda is 2 x strength, or strength with ``half``.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0.
        fisher: labels of the Fisher information: ``exact`` (paper), ``sampled``, ``empirical``, ``predicted`` or
            ``auto``: exact, but sampled for long sequences with a label a step; or ``mean_gradient`` in its place; see
            `cl.importance.fisher`.
        samples: training samples it is averaged over, or None for all.
        half: True multiplies the penalty by 1/2, as the paper writes it (eq. 3).
        clip: largest importance of a parameter, or None.
        normalise: True scales each task's importances to a largest value of 1.
        heads: False leaves the head out of the penalty, with the rows of all tasks; shared parameters alone are held.
    """

    paper = Paper("Overcoming catastrophic forgetting in neural networks", 2017, "https://arxiv.org/abs/1612.00796")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 1000.0,
        fisher: str = "auto",
        samples: int | None = None,
        half: bool = False,
        clip: float | None = None,
        normalise: bool = False,
        heads: bool = True,
    ) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(fisher in FISHERS, "strategy.fisher", f"in {list(FISHERS)}", fisher)
        expect(samples is None or samples > 0, "strategy.samples", "> 0", samples)
        expect(clip is None or clip > 0, "strategy.clip", "> 0", clip)
        self.factor = strength / 2 if half else strength
        self.fisher, self.samples, self.clip, self.normalise = fisher, samples, clip, normalise
        self.quadratic = Quadratic(learner, heads)

    def penalty(self) -> Tensor:
        """Return the penalty () on the change of important parameters."""
        return self.factor * self.quadratic.penalty(self.learner)

    def importance(self, task: Task) -> dict[str, Tensor]:
        """Return the Fisher information of what is held at the present parameters, normalised and clipped as asked."""
        found = fisher(self, task.train, self.fisher, self.samples)
        found = {n: f for n, f in found.items() if n in self.quadratic.importance}
        if self.normalise and found:
            largest = torch.stack([f.max() for f in found.values()]).max().clamp_min(1e-30)
            found = {n: f / largest for n, f in found.items()}
        return found if self.clip is None else {n: f.clamp_max(self.clip) for n, f in found.items()}

    def end_task(self, task: Task) -> None:
        """Add the penalty of this task."""
        self.quadratic.add(self.learner, self.importance(task))
