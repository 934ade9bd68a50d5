"""Riemannian walk (Chaudhry et al. 2018): Fisher information plus scores gathered along the path of training."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.build import Conditions
from cl.errors import expect
from cl.importance import FISHERS, PathIntegral, Quadratic, fisher
from cl.learners.base import Learner
from cl.parameters import PerParameter
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task


class RWalk(Strategy):
    """A quadratic penalty around the latest solution with importance F + s, each scaled to [0, 1].

    s_i sums, over stretches of `interval` steps, the fall of the loss along parameter i per change of the model's
    distribution: -sum g_i dtheta_i / (F~_i (Delta theta_i)^2 / 2 + epsilon), negative stretches counting as zero. F~ is
    the one at the beginning of the stretch; at its end F~ <- alpha f + (1 - alpha) F~, f the mean over the stretch of
    the squared gradients of batches, without the penalty. After a task its s is averaged with the s of before, and
    the average is scaled; F~ goes on through all tasks and is scaled as it stands. A stretch that a task cuts short
    does not count. Exemplars are left to a combination with replay.

    Differs from the authors' code: there the divergence lacks the factor 1/2, and s of before counts 3/2, not 1/2.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0 (the paper's lambda).
        interval: steps in a stretch, > 0 (the paper's Delta t).
        alpha: weight of the newest stretch in F~, in (0, 1]; .9 in the paper.
        epsilon: damping of the scores, > 0.
        keep: weight of the earlier scores in the average after a task, in [0, 1]; 1/2 in the paper.
        fisher: F of the penalty: ``running`` is F~ (the paper's); else the mean over single samples of the latest task
            when it has ended, which does not depend on the batch size, with these labels (`cl.importance.fisher`).
        samples: training samples that such a mean is taken over, or None for all.
        heads: False leaves the head out of the penalty, with the rows of all tasks; shared parameters alone are held.
    """

    paper = Paper("Riemannian walk for incremental learning", 2018, "https://arxiv.org/abs/1801.10112")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}
    steps: Tensor
    only_with: ClassVar[Conditions] = {"samples": {"fisher": FISHERS}}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 1.0,
        interval: int = 10,
        alpha: float = 0.9,
        epsilon: float = 0.001,
        keep: float = 0.5,
        fisher: str = "running",
        samples: int | None = None,
        heads: bool = True,
    ) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(interval > 0, "strategy.interval", "> 0", interval)
        expect(0 < alpha <= 1, "strategy.alpha", "in (0, 1]", alpha)
        expect(epsilon > 0, "strategy.epsilon", "> 0", epsilon)
        expect(0 <= keep <= 1, "strategy.keep", "in [0, 1]", keep)
        expect(fisher in ("running", *FISHERS), "strategy.fisher", f"in {['running', *FISHERS]}", fisher)
        expect(samples is None or samples > 0, "strategy.samples", "> 0", samples)
        self.strength, self.interval, self.alpha, self.epsilon, self.keep = strength, interval, alpha, epsilon, keep
        self.fisher, self.samples = fisher, samples
        self.quadratic = Quadratic(learner, heads)
        self.path = PathIntegral(learner)  # of the present stretch
        self.start = PerParameter(learner, start="values")  # where the present stretch began
        self.squares = PerParameter(learner)  # sum of squared gradients in it
        self.curvature = PerParameter(learner)  # F~
        self.scores = PerParameter(learner)  # of the present task
        self.average = PerParameter(learner)  # of the scores of the tasks before
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # of the present task

    def penalty(self) -> Tensor:
        """Return the penalty () on the change of important parameters."""
        return self.strength * self.quadratic.penalty(self.learner, self.path.gradient)

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Note the gradients and where the step starts; return them unchanged."""
        self.path.begin_step(self.learner, grads, self.quadratic, self.strength)
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Follow the path, and turn it into scores where a stretch ends."""
        self.path.end_step(self.learner)
        self.steps.add_(1)
        due = self.steps % self.interval == 0
        for name, p in self.learner.named_parameters():
            curvature, start, gain = self.curvature[name], self.start[name], self.path.total[name]
            squares = self.squares[name].add_(self.path.gradient[name].square())
            score = gain.clamp_min(0) / (curvature * (p - start).square() / 2 + self.epsilon)
            self.scores[name].add_(torch.where(due, score, 0.0))
            curvature.copy_(torch.where(due, curvature.lerp(squares / self.interval, self.alpha), curvature))
            start.copy_(torch.where(due, p, start))
            for gathered in (gain, squares):
                gathered.copy_(torch.where(due, 0.0, gathered))

    def end_task(self, task: Task) -> None:
        """Average the scores, put the anchor here, and start new scores."""
        for name, score in self.scores.items():
            self.average[name].lerp_(score, 1 - self.keep if task.index > 0 else 1.0)
        running = self.fisher == "running"
        information = dict(self.curvature.items()) if running else fisher(self, task.train, self.fisher, self.samples)
        held = [n for n in self.quadratic.importance.names if n in information]
        parts = [_scaled({n: values[n] for n in held}) for values in (information, self.average)]
        self.quadratic.replace(self.learner, {n: parts[0][n] + parts[1][n] for n in held}, keep=0.0)
        self.start.copy_from(self.learner)
        self.steps.zero_()
        for gathered in (self.scores, self.path.total, self.squares):
            for _, value in gathered.items():
                value.zero_()


def _scaled(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scale the values of all parameters together so that they lie between 0 and 1 and reach both."""
    low, high = torch.cat([v.flatten() for v in values.values()]).aminmax()
    return {n: (v - low) / (high - low).clamp_min(1e-30) for n, v in values.items()}
