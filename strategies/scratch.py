"""From scratch: each task is trained in a newly initialised network, and only the newest is kept."""

from typing import ClassVar

from cl.seeding import seeded
from cl.strategy import Strategy


class Scratch(Strategy):
    """Throw the network and its optimiser's state away before every task.

    What the current task reaches without any influence of the past: the reference for plasticity and for forward
    transfer, and the bottom for forgetting.
    """

    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")

    def grow(self, k: int) -> None:
        """Put a new network in place."""
        if k > 0:
            with seeded(self.info.seed, "network", k):
                self.learner = self.learner.fresh()
