"""A network for every task that starts as a copy of the one before it."""

from copy import deepcopy

from cl.learners.base import Learner
from strategies.separate import Separate


class WarmStart(Separate):
    """Each task starts from the knowledge of the earlier ones, in a network of its own, and all networks are kept.

    Fine-tuning's transfer without its forgetting; the gap to `separate` is the worth of the earlier tasks, the gap to
    `naive` is forgetting alone where both start each task with a new optimiser state
    (`training.optimizer_state=reset`): a new network has none of the moments that `naive` keeps.
    """

    def next_network(self, k: int) -> Learner:
        """Return a copy of the newest network."""
        return deepcopy(self.learner)
