"""Metrics of regression: squared errors e(k, j) on task j after task k, k = 0 before training.

They are the metrics of the accuracy matrix, taken of e. Only streams that ask for numbers have them; what is called
accuracy there is the share of samples whose every error is below .04.
"""

from cl.metrics.base import Array, metric
from cl.metrics.matrix import average_accuracy, learning_accuracy, loss_gained

UNIT = "squared error"


@metric(
    better="lower",
    meaning="Mean squared error over the tasks learned so far, at the end of the run.",
    source="as average accuracy, Lopez-Paz and Ranzato 2017, equation 2, for the loss",
    unit=UNIT,
)
def mean_squared_error(errors: Array) -> Array:
    """Mean squared error, (S,): (1/T) sum_j e(T, j).

    Args:
        errors: (S, K+1, K).

    >>> import numpy as np
    >>> E = np.array([[[0.7, 0.7], [0.2, 0.6], [0.5, 0.1]]])
    >>> mean_squared_error(E).round(4).tolist()  # (.5 + .1) / 2
    [0.3]
    """
    return average_accuracy(errors)


@metric(
    better="lower",
    meaning="Squared error at the end of the run minus that right after the task was learned; positive means "
    "forgotten.",
    source="the terms of Lopez-Paz and Ranzato 2017, equation 3, for a loss",
    unit=UNIT,
)
def error_gained(errors: Array) -> Array:
    """Error gained on each task but the last, (S, K): e(T, j) - e(j, j); NaN for the last and for tasks not reached.

    >>> import numpy as np
    >>> E = np.array([[[0.7, 0.7], [0.2, 0.6], [0.5, 0.1]]])
    >>> error_gained(E).round(4).tolist()  # .5 - .2
    [[0.3, nan]]
    """
    return loss_gained(errors)


@metric(
    better="lower",
    meaning="Mean squared error on each task right after it was learned, whatever is forgotten.",
    source="as learning accuracy, Riemer et al. 2019 (MER), section 5, for a loss",
    unit=UNIT,
)
def error_learned(errors: Array) -> Array:
    """Squared error right after learning, (S,): (1/T) sum_j e(j, j).

    >>> import numpy as np
    >>> E = np.array([[[0.7, 0.7], [0.2, 0.6], [0.5, 0.1]]])
    >>> error_learned(E).round(4).tolist()  # (.2 + .1) / 2
    [0.15]
    """
    return learning_accuracy(errors)
