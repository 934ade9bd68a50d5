"""Online EWC (Schwarz et al. 2018; Huszar 2018): one running penalty around the latest solution."""

from cl.errors import expect
from cl.learners.base import Learner
from cl.strategy import Paper
from cl.streams.base import StreamInfo, Task
from strategies.ewc import EWC


class OnlineEWC(EWC):
    """EWC with a single quadratic penalty, anchored at the end of the latest task.

    loss = cross-entropy + strength * sum_i F~_i (theta_i - theta*_i)^2, with F~ <- decay * F~ + F after each task. That
    the anchor is the latest solution alone is Huszar's correction: the penalties of earlier tasks already shaped it.

    Differs from the paper: Schwarz et al. scale each task's Fisher to one size (here ``normalise``, off by default);
    their eq. 9 weighs the penalty by gamma once more, here a part of the strength.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        strength: weight of the penalty, >= 0.
        decay: what remains of the earlier Fisher information after a task, in [0, 1] (the paper's gamma).
        fisher: as in `EWC`.
        samples: as in `EWC`.
        half: as in `EWC`.
        clip: as in `EWC`.
        normalise: as in `EWC`.
        heads: as in `EWC`.
    """

    paper = Paper(
        "Progress & Compress: a scalable framework for continual learning", 2018, "https://arxiv.org/abs/1805.06370"
    )

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        strength: float = 100.0,
        decay: float = 1.0,
        fisher: str = "auto",
        samples: int | None = None,
        half: bool = False,
        clip: float | None = None,
        normalise: bool = False,
        heads: bool = True,
    ) -> None:
        super().__init__(learner, info, strength, fisher, samples, half, clip, normalise, heads)
        expect(0 <= decay <= 1, "strategy.decay", "in [0, 1]", decay)
        self.decay = decay

    def end_task(self, task: Task) -> None:
        """Let the earlier importance fade, add this task's, and move the anchor here."""
        self.quadratic.replace(self.learner, self.importance(task), self.decay)
