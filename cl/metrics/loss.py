"""Metrics of the test loss b(k, j) on task j after task k, k = 0 before training.

They are the metrics of the accuracy matrix, taken of the loss: cross-entropy in nats, or the mean squared error where
numbers are predicted, of which the accuracy (how many came near enough) says less.
"""

import numpy as np

from cl.metrics.base import Array, metric, tasks_learned
from cl.metrics.matrix import accuracy_drop, average_accuracy

UNIT = "nats, or squared error of regression"


@metric(
    better="lower",
    meaning="Mean test loss over all tasks learned so far, at the end of the run.",
    source="Lopez-Paz and Ranzato 2017, equation 2 (ACC), for a loss",
    unit=UNIT,
)
def average_loss(loss: Array) -> Array:
    """Average loss, (S,): (1/T) sum_j b(T, j).

    Args:
        loss: (S, K+1, K).

    >>> import numpy as np
    >>> B = np.array([[[0.7, 0.7], [0.2, 0.6], [0.5, 0.1]]])
    >>> average_loss(B).round(4).tolist()  # (.5 + .1) / 2
    [0.3]
    """
    return average_accuracy(loss)


@metric(
    better="lower",
    meaning="Test loss at the end of the run minus that right after the task was learned; positive means forgotten.",
    source="the terms of Lopez-Paz and Ranzato 2017, equation 3, for a loss",
    unit=UNIT,
)
def loss_increase(loss: Array) -> Array:
    """Loss gained on each task but the last, (S, K): b(T, j) - b(j, j); NaN for the last and for tasks not reached.

    Args:
        loss: (S, K+1, K).

    >>> import numpy as np
    >>> B = np.array([[[0.7, 0.7], [0.2, 0.6], [0.5, 0.1]]])
    >>> loss_increase(B).round(4).tolist()  # .5 - .2
    [[0.3, nan]]
    """
    gained = -accuracy_drop(loss)
    return np.where(np.arange(gained.shape[1]) < tasks_learned(loss)[:, None] - 1, gained, np.nan)
