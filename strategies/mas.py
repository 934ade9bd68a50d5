"""Memory aware synapses (Aljundi et al. 2018): weights that the outputs are sensitive to become stiff."""

from typing import Any, ClassVar

from torch import Tensor

from cl.errors import expect
from cl.importance import NORMS, Quadratic, output_sensitivity
from cl.learners.base import Learner
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo, Task


class MAS(Strategy):
    """A quadratic penalty around the latest solution, weighted by the sensitivity of the outputs; labels are not used.

    loss = cross-entropy + strength * sum_i Omega_i (theta_i - theta*_i)^2, where after each task
    Omega_i += mean_n |d ||f(x_n)||^2 / d theta_i|, over the outputs that the scenario allows; ``norm=plain`` takes the
    norm without its square, as some later implementations do.

    Differs from the paper: none. (Implementations that take the gradient of a batch's mean output find importances that
    shrink with the batch size; strengths tuned for those are too large here.)

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0 (the paper's lambda).
        samples: training samples the sensitivity is averaged over, or None for all.
        decay: what remains of the earlier importance after a task, in [0, 1].
        norm: of the outputs: ``squared`` (the paper, eq. 3) or ``plain``.
        heads: False leaves the head out of the penalty, with the rows of all tasks; shared parameters alone are held.
    """

    paper = Paper("Memory aware synapses: learning what (not) to forget", 2018, "https://arxiv.org/abs/1711.09601")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 1.0,
        samples: int | None = None,
        decay: float = 1.0,
        norm: str = "squared",
        heads: bool = True,
    ) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(samples is None or samples > 0, "strategy.samples", "> 0", samples)
        expect(0 <= decay <= 1, "strategy.decay", "in [0, 1]", decay)
        expect(norm in NORMS, "strategy.norm", f"in {list(NORMS)}", norm)
        self.strength, self.samples, self.decay, self.norm = strength, samples, decay, norm
        self.quadratic = Quadratic(learner, heads)

    def penalty(self) -> Tensor:
        """Return the penalty () on the change of important parameters."""
        return self.strength * self.quadratic.penalty(self.learner)

    def end_task(self, task: Task) -> None:
        """Add this task's importance and move the anchor here."""
        found = output_sensitivity(self, task.train, self.samples, norm=self.norm)
        self.quadratic.replace(self.learner, found, self.decay)
