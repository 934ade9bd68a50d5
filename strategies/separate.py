"""A network of its own for every task: no forgetting, no transfer, linear growth."""

from typing import ClassVar

from torch import Tensor, nn

from cl import objectives
from cl.learners.base import Learner
from cl.seeding import seeded
from cl.strategy import Network, Strategy
from cl.streams.base import StreamInfo


class Separate(Strategy):
    """Train a newly initialised network on each task and keep all of them; the task id chooses at test time.

    The reference of forward transfer: what a task reaches without the others.
    """

    scenarios: ClassVar[tuple[str, ...]] = ("task",)
    needs_task_id: ClassVar[bool] = True
    protects: ClassVar[bool] = True

    def __init__(self, learner: Learner, info: StreamInfo) -> None:
        super().__init__(learner, info)
        self.earlier = nn.ModuleList()

    def next_network(self, k: int) -> Learner:
        """Return the network that task k starts from."""
        with seeded(self.info.seed, "network", k):
            return self.learner.fresh()

    def grow(self, k: int) -> None:
        """Freeze the present network and put the next in its place."""
        if k > 0:
            network = self.next_network(k)
            self.earlier.append(self.learner.requires_grad_(False))
            self.learner = network

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Ask the network of the task; the newest one for a task not met yet."""
        return objectives.mask_logits(self.network(task).learner(x), self.allowed_at_test(task))

    def network(self, task: int | None) -> Network:
        """Return the network of the task."""
        assert task is not None
        networks = [*(n for n in self.earlier if isinstance(n, Learner)), self.learner]
        return Network(networks[min(task, len(self.earlier))])
