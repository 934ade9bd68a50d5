"""Frozen backbone: features are learned on the first task, later tasks train the head alone."""

from collections.abc import Mapping
from typing import Any, ClassVar

from cl.errors import expect
from cl.learners.base import Learner
from cl.strategy import Strategy
from cl.streams.base import StreamInfo


class Frozen(Strategy):
    """Freeze everything but the head, running statistics of normalisation included, after the first tasks.

    Forgetting is then left to the head alone; with one head per task there is none beyond what the optimiser's momentum
    does to rows of earlier tasks.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        after: tasks that train the backbone; 0 keeps it as it was initialised (random features).
    """

    rebuilt: ClassVar[tuple[str, ...]] = ("frozen",)
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    neutral: ClassVar[Mapping[str, Any] | None] = {"after": 1000}

    def __init__(self, learner: Learner, info: StreamInfo, after: int = 1) -> None:
        super().__init__(learner, info)
        expect(after >= 0, "strategy.after", ">= 0", after)
        self.after = after
        self.frozen = False

    def grow(self, k: int) -> None:
        """Freeze the backbone once enough tasks have trained it."""
        self.frozen = k >= self.after
        if self.frozen:
            self.learner.requires_grad_(False)
            self.learner.head.requires_grad_(True)

    def train(self, mode: bool = True) -> "Frozen":
        """Keep a frozen backbone in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.learner.eval()
            self.learner.head.train(mode)
        return self
