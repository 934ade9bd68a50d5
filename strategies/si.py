"""Synaptic intelligence (Zenke, Poole and Ganguli 2017): importance gathered along the path of training."""

from typing import Any, ClassVar

from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.importance import PathIntegral, Quadratic
from cl.learners.base import Learner
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task


class SI(Strategy):
    """A quadratic penalty around the latest solution, weighted by how much each weight lowered the loss of each task.

    loss = cross-entropy + strength * sum_i Omega_i (theta_i - theta*_i)^2, where after each task
    Omega_i += omega_i / (Delta_i^2 + epsilon), with omega_i = -sum_steps g_i dtheta_i along the path, g the gradient
    of the loss without the penalty, and Delta_i the change over the task.

    Differs from the paper: none.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0 (the paper's c).
        epsilon: damping of the denominator, > 0 (the paper's xi).
        positive: True keeps Omega at or above zero, as the authors' code does.
        whole_loss: True takes g of the loss with the penalty.
        heads: False leaves the head out of the penalty, with the rows of all tasks; shared parameters alone are held.
    """

    paper = Paper("Continual learning through synaptic intelligence", 2017, "https://arxiv.org/abs/1703.04200")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 100.0,
        epsilon: float = 0.1,
        positive: bool = True,
        whole_loss: bool = False,
        heads: bool = True,
    ) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(epsilon > 0, "strategy.epsilon", "> 0", epsilon)
        self.strength, self.epsilon, self.positive = strength, epsilon, positive
        self.whole_loss = whole_loss
        self.path = PathIntegral(learner)
        self.quadratic = Quadratic(learner, heads)

    def penalty(self) -> Tensor:
        """Return the penalty () on the change of important parameters."""
        return self.strength * self.quadratic.penalty(self.learner, None if self.whole_loss else self.path.gradient)

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Note the gradients and where the step starts; return them unchanged."""
        self.path.begin_step(self.learner, grads, None if self.whole_loss else self.quadratic, self.strength)
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Add the step to the path integral."""
        self.path.end_step(self.learner)

    def end_task(self, task: Task) -> None:
        """Turn the path into importance and start a new one."""
        change = {n: p.detach() - self.quadratic.anchor[n] for n, p in self.quadratic.parameters_of(self.learner)}
        found = {n: self.path.total[n] / (d.square() + self.epsilon) for n, d in change.items()}
        self.quadratic.replace(self.learner, found)
        for _, importance in self.quadratic.importance.items() if self.positive else ():
            importance.clamp_(min=0)
        for _, total in self.path.total.items():
            total.zero_()
