"""Joint training on all tasks at once: the upper bound that methods are measured against."""

from typing import ClassVar

from cl.learners.base import Learner
from cl.streams.base import StreamInfo, TrainingView
from cl.streams.data import TrainingData
from strategies.cumulative import Cumulative


class Joint(Cumulative):
    """Offline training on the union of all tasks, each sample drawn (and augmented) anew in every epoch.

    All training happens while task 0 is on, with every output active, for as many steps as the K tasks would take
    together; later tasks train on nothing. So all rows of the accuracy matrix after row 0 are the same, and the last
    is the offline accuracy that papers print. A reference per task (intransigence, Chaudhry et al. 2018, needs the
    accuracy on task k of a network trained on tasks 0..k) comes with `retrain`.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        retrain: True trains, at each task k, a new network on tasks 0..k.
    """

    sees: ClassVar[str] = "all"

    def __init__(self, learner: Learner, info: StreamInfo, retrain: bool = False) -> None:
        super().__init__(learner, info, reinitialise=retrain)

    def enter(self, k: int) -> None:
        """Activate all outputs from the start, unless networks follow the tasks."""
        super().enter(k)
        if not self.reinitialise:
            self.active.fill_(True)

    def training_data(self, stream: TrainingView, k: int) -> TrainingData:
        """Return all tasks at task 0 and nothing later."""
        if self.reinitialise:
            return super().training_data(stream, k)
        return super().training_data(stream, len(stream) - 1) if k == 0 else TrainingData([])
