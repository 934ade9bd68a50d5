"""Metrics of the accuracy on training batches just before they are learned (`evaluation.online`)."""

import numpy as np

from cl.metrics.base import Array, metric
from cl.metrics.curve import Ints


@metric(
    better="higher",
    meaning="Accuracy on samples of each task at the moment they are first met: how fast a task is learned.",
    source="Dohare et al. 2024, online permuted MNIST (online accuracy per task)",
)
def online_accuracy_by_task(online_accuracy: Array, task_steps: Ints) -> Array:
    """Online accuracy of each task, (S, K): the mean over the steps of task k; NaN for tasks without steps.

    Args:
        online_accuracy: (S, total steps).
        task_steps: (K,) steps trained on each task.

    >>> online_accuracy_by_task(np.array([[0.2, 0.6, 0.5, 0.7, 0.9]]), np.array([2, 3])).round(4).tolist()
    [[0.4, 0.7]]
    """
    ends = np.cumsum(task_steps)
    parts = [online_accuracy[:, end - n : end] for end, n in zip(ends, task_steps, strict=True)]
    means = [p.mean(axis=1) if p.shape[1] else np.full(len(p), np.nan) for p in parts]
    return np.stack(means, axis=1).astype(np.float64)


@metric(
    better="higher",
    meaning="Online accuracy of the first task: how fast a fresh network learns.",
    source="Dohare et al. 2024, online permuted MNIST",
)
def first_online_accuracy(online_accuracy: Array, task_steps: Ints) -> Array:
    """Online accuracy of the first task, (S,).

    >>> first_online_accuracy(np.array([[0.2, 0.6, 0.5, 0.7, 0.9]]), np.array([2, 3])).round(4).tolist()
    [0.4]
    """
    return np.asarray(online_accuracy_by_task(online_accuracy, task_steps)[:, 0])


@metric(
    better="higher",
    meaning="Online accuracy of the last task: how fast the network still learns; below the first, plasticity is lost.",
    source="Dohare et al. 2024, online permuted MNIST",
)
def last_online_accuracy(online_accuracy: Array, task_steps: Ints) -> Array:
    """Online accuracy of the last task, (S,).

    >>> last_online_accuracy(np.array([[0.2, 0.6, 0.5, 0.7, 0.9]]), np.array([2, 3])).round(4).tolist()
    [0.7]
    """
    return np.asarray(online_accuracy_by_task(online_accuracy, task_steps)[:, -1])
