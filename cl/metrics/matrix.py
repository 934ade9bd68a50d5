"""Metrics of the accuracy matrix alone, and of the matrix of test losses beside it.

In the formulas a(k, j) is the accuracy on task j after task k, both counted from 1; a(0, j) is the accuracy before any
training, and T the number of tasks finished (rows not reached are NaN and leave the metrics of the rows before intact).
"""

import numpy as np

from cl.metrics.base import Array, check_matrix, just_learned, last_row, mean_where, metric, tasks_learned


@metric(
    better="higher",
    meaning="Mean accuracy over all tasks learned so far, at the end of the run.",
    source="Lopez-Paz and Ranzato 2017, equation 2 (ACC)",
)
def average_accuracy(accuracy: Array) -> Array:
    """Average accuracy, (S,): (1/T) sum_j a(T, j).

    Args:
        accuracy: (S, K+1, K).

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> average_accuracy(R).round(4).tolist()  # (.6 + .85 + 1) / 3
    [0.8167]
    """
    found = check_matrix(accuracy)
    tasks = np.arange(found.shape[2])
    return mean_where(last_row(found), tasks < tasks_learned(found)[:, None])


def average_accuracy_by_task(accuracy: Array) -> Array:
    """Average accuracy after each task, (S, K): A(k) = (1/k) sum_{j <= k} a(k, j); NaN for tasks not reached.

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> average_accuracy_by_task(R).round(4).tolist()  # .9, (.7 + .8) / 2, (.6 + .85 + 1) / 3
    [[0.9, 0.75, 0.8167]]
    """
    found = check_matrix(accuracy)[:, 1:]
    seen = np.tril(np.ones(found.shape[1:], bool))
    return mean_where(found, np.broadcast_to(seen, found.shape))


@metric(
    better="higher",
    meaning="Average accuracy over the tasks seen, averaged over the moments after each task.",
    source="Rebuffi et al. 2017 (iCaRL), section 4",
)
def average_incremental_accuracy(accuracy: Array) -> Array:
    """Average incremental accuracy, (S,): (1/T) sum_k A(k), A(k) = (1/k) sum_{j <= k} a(k, j).

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> average_incremental_accuracy(R).round(4).tolist()  # (.9 + .75 + .8167) / 3
    [0.8222]
    """
    by_task = average_accuracy_by_task(accuracy)
    return mean_where(by_task, np.isfinite(by_task))


@metric(
    better="lower",
    meaning="Accuracy a task had right after it was trained minus what is left at the end; positive means lost.",
    source="the terms of Lopez-Paz and Ranzato 2017, equation 3, with the sign turned",
)
def accuracy_drop(accuracy: Array) -> Array:
    """Accuracy drop of each task, (S, K): a(j, j) - a(T, j); 0 for the last task, NaN for tasks not reached.

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> accuracy_drop(R).round(4).tolist()  # .9 - .6, .8 - .85, 1 - 1
    [[0.3, -0.05, 0.0]]
    """
    found = check_matrix(accuracy)
    return just_learned(found) - last_row(found)


@metric(
    better="lower",
    meaning="How far the tasks before the last have fallen from the best they ever were.",
    source="Chaudhry et al. 2018 (RWalk), equations 2 and 3",
)
def forgetting(accuracy: Array) -> Array:
    """Forgetting, (S,): (1/(T-1)) sum_{j < T} (max_{1 <= l < T} a(l, j) - a(T, j)).

    The maximum is over all moments before the last, also those before task j was trained, as in the paper; the last
    row is not in it, so a task that only improved counts as negative forgetting. NaN for fewer than two tasks.

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> forgetting(R).round(4).tolist()  # ((.9 - .6) + (.8 - .85)) / 2
    [0.125]
    """
    found = check_matrix(accuracy)
    learned = tasks_learned(found)[:, None]
    rows, tasks = np.arange(found.shape[1]), np.arange(found.shape[2])
    before = ((rows >= 1) & (rows < learned))[:, :, None]
    best = np.where(before, found, -np.inf).max(axis=1)
    return mean_where(best - last_row(found), tasks < learned - 1)


@metric(
    better="higher",
    meaning="How later tasks changed the accuracy on earlier ones; negative means forgetting.",
    source="Lopez-Paz and Ranzato 2017, equation 3 (BWT)",
)
def backward_transfer(accuracy: Array) -> Array:
    """Backward transfer, (S,): (1/(T-1)) sum_{j < T} (a(T, j) - a(j, j)). NaN for fewer than two tasks.

    The code of GEM (and of MER and La-MAML, which took it over) averages over all T tasks, the last of which gives 0:
    its numbers are (T-1)/T of these, 5 per cent nearer to 0 for 20 tasks.

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> backward_transfer(R).round(4).tolist()  # ((.6 - .9) + (.85 - .8)) / 2
    [-0.125]
    """
    found = check_matrix(accuracy)
    tasks = np.arange(found.shape[2])
    return mean_where(last_row(found) - just_learned(found), tasks < tasks_learned(found)[:, None] - 1)


@metric(
    better="higher",
    meaning="How much earlier tasks helped on a task before it was trained, over the untrained network.",
    source="Lopez-Paz and Ranzato 2017, equation 4 (FWT)",
)
def forward_transfer(accuracy: Array) -> Array:
    """Forward transfer, (S,): (1/(T-1)) sum_{1 < j <= T} (a(j-1, j) - a(0, j)). NaN for fewer than two tasks.

    NaN too where every a(j-1, j) is exactly 0: outputs of classes not met are masked then (class scenario), and the
    difference would tell no more than the accuracy of the untrained network.

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> forward_transfer(R).round(4).tolist()  # ((.5 - .4) + (.6 - .5)) / 2
    [0.1]
    """
    found = check_matrix(accuracy)
    tasks = np.arange(found.shape[2])
    before, counted = found[:, tasks, tasks], (tasks >= 1) & (tasks < tasks_learned(found)[:, None])
    masked = ((before == 0) | ~counted).all(1)
    return np.where(masked, np.nan, mean_where(before - found[:, 0], counted))


@metric(
    better="higher",
    meaning="Mean accuracy on each task right after training it: the ability to learn, whatever is forgotten.",
    source="Riemer et al. 2019 (MER), section 5 (LA)",
)
def learning_accuracy(accuracy: Array) -> Array:
    """Learning accuracy, (S,): (1/T) sum_j a(j, j).

    >>> import numpy as np
    >>> R = np.array([[[0.5, 0.4, 0.5], [0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.85, 1.0]]])
    >>> learning_accuracy(R).round(4).tolist()  # (.9 + .8 + 1) / 3
    [0.9]
    """
    found = check_matrix(accuracy)
    tasks = np.arange(found.shape[2])
    return mean_where(just_learned(found), tasks < tasks_learned(found)[:, None])


@metric(
    better="lower",
    meaning="Mean test loss over all tasks learned so far, at the end of the run.",
    source="as average accuracy, Lopez-Paz and Ranzato 2017, equation 2, for the loss",
    unit="nats; squared error of regression",
)
def average_loss(loss: Array) -> Array:
    """Average loss, (S,): (1/T) sum_j b(T, j), with b(k, j) the loss on task j after task k.

    Args:
        loss: (S, K+1, K).

    >>> import numpy as np
    >>> B = np.array([[[0.7, 0.7], [0.2, 0.6], [0.5, 0.1]]])
    >>> average_loss(B).round(4).tolist()  # (.5 + .1) / 2
    [0.3]
    """
    return average_accuracy(loss)


def loss_gained(loss: Array) -> Array:
    """Loss gained on each task but the last, (S, K): b(T, j) - b(j, j); NaN for the last and for tasks not reached.

    Args:
        loss: (S, K+1, K).
    """
    gained = -accuracy_drop(loss)
    return np.where(np.arange(gained.shape[1]) < tasks_learned(loss)[:, None] - 1, gained, np.nan)
