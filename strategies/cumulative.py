"""Cumulative training: at each task, train on all tasks so far."""

from typing import ClassVar

from cl.learners.base import Learner
from cl.seeding import seeded
from cl.strategy import Strategy
from cl.streams.base import StreamInfo, TrainingView
from cl.streams.data import TrainingData


class Cumulative(Strategy):
    """Train on the union of the tasks met so far, each sample drawn (and augmented) anew in every epoch.

    An upper bound with a fair view of time: row k of its accuracy matrix is what training on tasks 0..k together
    gives, which is the reference of intransigence (Chaudhry et al. 2018). With `batch_scale` it is the protocol of the
    stability gap (De Lange, van de Ven, Tuytelaars 2023): the steps of one task, on batches that grow with the tasks.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        reinitialise: True starts every task from a newly initialised network and optimiser.
        batch_scale: True multiplies the batch size by the number of tasks so far, and leaves the steps of a task as
            they are; False keeps the batch size and multiplies the steps.
    """

    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    sees: ClassVar[str] = "past"
    protects: ClassVar[bool] = True

    def __init__(
        self, learner: Learner, info: StreamInfo, reinitialise: bool = False, batch_scale: bool = False
    ) -> None:
        super().__init__(learner, info)
        self.reinitialise, self.batch_scale = reinitialise, batch_scale

    def grow(self, k: int) -> None:
        """Put a new network in place if asked to."""
        if self.reinitialise and k > 0:
            with seeded(self.info.seed, "network", k):
                self.learner = self.learner.fresh()

    def training_data(self, stream: TrainingView, k: int) -> TrainingData:
        """Return tasks 0..k; early stopping looks at what is held out of all of them."""
        tasks = [stream[j] for j in range(k + 1)]
        held_out = [task.validation for task in tasks if task.validation is not None]
        longer, larger = (1, k + 1) if self.batch_scale else (k + 1, 1)
        return TrainingData([task.train for task in tasks], None, longer, larger, held_out)
