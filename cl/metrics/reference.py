"""Metrics against reference runs on the same stream: joint training (the ceiling) and fine-tuning (the floor).

A reference has one replica for each of the run's, in the same order of seeds, or one replica for all of them.
"""

import numpy as np

from cl.metrics.base import Array, check_matrix, just_learned, mean_where, metric, tasks_learned
from cl.metrics.matrix import average_accuracy

_SMALLEST_GAP = 1e-6  # below it the floor is the ceiling, and a share of nothing means nothing


@metric(
    better="lower",
    meaning="Accuracy that joint training has on a new task and this strategy does not reach: inability to learn.",
    source="Chaudhry et al. 2018 (RWalk), equation 4, averaged over tasks",
)
def intransigence(accuracy: Array, joint: Array) -> Array:
    """Intransigence, (S,): (1/T) sum_j (a*(j, j) - a(j, j)), a* the accuracy of the joint reference.

    Args:
        accuracy: (S, K+1, K).
        joint: (S or 1, K+1, K), of a learner trained on tasks 1 to j (cumulative) or on all of them (joint).

    >>> R = np.array([[[0.5, 0.5], [0.9, 0.5], [0.6, 0.7]]])
    >>> joint = np.array([[[0.5, 0.5], [0.95, 0.5], [0.9, 0.8]]])
    >>> intransigence(R, joint).round(4).tolist()  # ((.95 - .9) + (.8 - .7)) / 2
    [0.075]
    """
    found, ceiling = check_matrix(accuracy), check_matrix(joint, "joint")
    tasks = np.arange(found.shape[2])
    return mean_where(just_learned(ceiling) - just_learned(found), tasks < tasks_learned(found)[:, None])


@metric(
    better="higher",
    meaning="Where average accuracy lies between fine-tuning (0) and joint training (1).",
    source="the normalisation of van de Ven et al. 2022; here of average accuracy",
)
def share_of_gap_closed(accuracy: Array, joint: Array, naive: Array) -> Array:
    """Share of the naive-to-joint gap closed, (S,): (A - A_naive) / (A_joint - A_naive), A the average accuracy.

    NaN where naive and joint do not differ, and where one of the three runs got further than another.

    >>> R = np.array([[[0.5, 0.5], [0.9, 0.5], [0.6, 0.7]]])
    >>> joint = np.array([[[0.5, 0.5], [0.95, 0.5], [0.9, 0.8]]])
    >>> naive = np.array([[[0.5, 0.5], [0.9, 0.5], [0.2, 0.7]]])
    >>> share_of_gap_closed(R, joint, naive).round(4).tolist()  # (.65 - .45) / (.85 - .45)
    [0.5]
    """
    floor, ceiling = average_accuracy(naive), average_accuracy(joint)
    gap = ceiling - floor
    reached = tasks_learned(accuracy)
    alike = (tasks_learned(naive) == reached) & (tasks_learned(joint) == reached)
    wide = (np.abs(gap) > _SMALLEST_GAP) & alike
    return np.asarray(np.where(wide, (average_accuracy(accuracy) - floor) / np.where(wide, gap, 1.0), np.nan))
