"""Riemannian walk (Chaudhry et al. 2018): Fisher information plus scores gathered along the path of training."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.importance import FISHERS, PathIntegral, Quadratic, fisher
from cl.learners.base import Learner
from cl.parameters import PerParameter
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task


class RWalk(Strategy):
    """A quadratic penalty around the latest solution with importance F + s, both scaled to [0, 1].

    s_i sums, over stretches of `interval` steps, the fall of the loss along parameter i per change of the model's
    distribution: -sum g_i dtheta_i / (F~_i (Delta theta_i)^2 / 2 + epsilon), negative stretches counting as zero. F~ is
    a moving average of squared batch gradients without the penalty. After a task F and s are averaged with the earlier
    ones. Exemplars are left to a combination with replay.

    Differs from the paper: F of the penalty is a mean over single samples at the end of the task, so that it does not
    depend on the batch size, and is averaged over tasks as the scores are; the moving average serves the scores alone.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0 (the paper's lambda).
        interval: steps in a stretch, > 0 (the paper's Delta t).
        decay: of the moving average of squared gradients, in [0, 1).
        epsilon: damping of the scores, > 0.
        keep: weight of the earlier importance in the average after a task, in [0, 1].
        fisher: labels of the Fisher information, see `cl.importance.fisher`.
        samples: training samples it is averaged over, or None for all.
    """

    paper = Paper("Riemannian walk for incremental learning", 2018, "https://arxiv.org/abs/1801.10112")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}
    steps: Tensor

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 1.0,
        interval: int = 10,
        decay: float = 0.9,
        epsilon: float = 0.001,
        keep: float = 0.5,
        fisher: str = "empirical",
        samples: int | None = None,
    ) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(interval > 0, "strategy.interval", "> 0", interval)
        expect(0 <= decay < 1, "strategy.decay", "in [0, 1)", decay)
        expect(epsilon > 0, "strategy.epsilon", "> 0", epsilon)
        expect(0 <= keep <= 1, "strategy.keep", "in [0, 1]", keep)
        expect(fisher in FISHERS, "strategy.fisher", f"in {list(FISHERS)}", fisher)
        expect(samples is None or samples > 0, "strategy.samples", "> 0", samples)
        self.strength, self.interval, self.decay, self.epsilon, self.keep = strength, interval, decay, epsilon, keep
        self.fisher, self.samples = fisher, samples
        self.quadratic = Quadratic(learner)
        self.path = PathIntegral(learner)  # of the present stretch
        self.start = PerParameter(learner, start="values")  # where the present stretch began
        self.curvature = PerParameter(learner)  # F~
        self.scores = PerParameter(learner)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def penalty(self) -> Tensor:
        """Return the penalty () on the change of important parameters."""
        return self.strength * self.quadratic.penalty(self.learner)

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Note the gradients and where the step starts; return them unchanged."""
        self.path.begin_step(self.learner, grads, without=self.quadratic.gradient(self.learner, self.strength))
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Follow the path, and turn it into scores where a stretch ends."""
        self.path.end_step(self.learner)
        self.steps.add_(1)
        due = self.steps % self.interval == 0
        for name, p in self.learner.named_parameters():
            curvature, start, gain = self.curvature[name], self.start[name], self.path.total[name]
            curvature.mul_(self.decay).add_((1 - self.decay) * self.path.gradient[name].square())
            score = gain.clamp_min(0) / (curvature * (p - start).square() / 2 + self.epsilon)
            self.scores[name].add_(torch.where(due, score, 0.0))
            gain.copy_(torch.where(due, 0.0, gain))
            start.copy_(torch.where(due, p, start))

    def end_task(self, task: Task) -> None:
        """Add this task's importance, move the anchor here, and start new scores."""
        information = _scaled(fisher(self, task.train, self.fisher, self.samples))
        scores = _scaled(dict(self.scores.items()))
        keep = self.keep if task.index > 0 else 0.0
        new = {n: (1 - keep) * (f + scores[n]) for n, f in information.items()}
        self.quadratic.replace(self.learner, new, keep)
        self.start.copy_from(self.learner)
        for name, score in self.scores.items():
            score.zero_()
            self.path.total[name].zero_()


def _scaled(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scale values >= 0 of all parameters together to a largest value of 1."""
    largest = torch.stack([v.max() for v in values.values()]).max().clamp_min(1e-30)
    return {n: v / largest for n, v in values.items()}
