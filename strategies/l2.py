"""L2 toward the last solution: every weight is equally stiff; the baseline of importance-weighted penalties."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.learners.base import Learner
from cl.parameters import PerParameter, held
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo, Task


class L2(Strategy):
    """loss = cross-entropy + strength * ||theta - theta*||^2, theta* the parameters at the end of the task before.

    The baseline of Kirkpatrick et al. (2017) and Hsu et al. (2018).

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0.
        heads: False leaves the head out of the penalty, with the rows of all tasks; shared parameters alone are held.
    """

    paper = Paper("Re-evaluating continual learning scenarios", 2018, "https://arxiv.org/abs/1810.12488")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(self, learner: Learner, info: StreamInfo, strength: float = 0.1, heads: bool = True) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        self.strength = strength
        self.anchor = PerParameter(learner, start="values", only=held(learner, heads))

    def penalty(self) -> Tensor:
        """Return the penalty () on the change of what is held; zero during the first task."""
        distance = torch.stack([(p - a).square().sum() for p, a in self.anchor.pairs(self.learner)]).sum()
        return self.strength * (self.tasks_seen > 0) * distance

    def end_task(self, task: Task) -> None:
        """Move the anchor here."""
        self.anchor.copy_from(self.learner)
