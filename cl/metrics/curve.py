"""Metrics of the within-task curve: accuracy on fixed test subsets every n steps (`evaluation.every`).

The curve has N points; point n was taken after `curve_step[n]` steps of the run, while task `curve_task[n]` (from 0)
was trained; `curve_accuracy` is (S, N, K), NaN where a task was not measured. Means over tasks take those measured.
The examples share a curve of two tasks of 20 steps, one point every 5 steps:

    step              5   10   15   20 |  25   30   35   40
    task in training  0    0    0    0 |   1    1    1    1
    accuracy, task 0 .5   .8   .9   .9 |  .6   .7   .9   .8
    accuracy, task 1  -    -    -    - |  .4   .6   .8   .8
"""

import numpy as np
from numpy.typing import NDArray

from cl.errors import expect
from cl.metrics.base import Array, mean_where, metric

Ints = NDArray[np.int64]


def _finite_mean(values: Array) -> Array:
    return mean_where(values, np.isfinite(values))


def _lowest(values: Array) -> Array:
    """Return the minimum over points, (S, N, K) -> (S, K); NaN where nothing was measured."""
    if values.shape[1] == 0:
        return np.full((values.shape[0], values.shape[2]), np.nan)
    lowest = np.where(np.isfinite(values), values, np.inf).min(axis=1)
    return np.asarray(np.where(np.isfinite(lowest), lowest, np.nan))


def _latest(values: Array) -> Array:
    """Return the last measured value of every task, (S, N, K) -> (S, K)."""
    latest = np.full((values.shape[0], values.shape[2]), np.nan)
    for point in range(values.shape[1]):
        latest = np.where(np.isfinite(values[:, point]), values[:, point], latest)
    return latest


def _tasks_met(curve_task: Ints) -> int:
    return int(curve_task.max()) + 1 if len(curve_task) else 0


def _switch(curve_task: Ints, curve_accuracy: Array, k: int) -> tuple[Array, Array, Array]:
    """Return accuracy on tasks 0..k-1 just before task k, at its lowest during k, at the end of k: (S, k) each."""
    before = _latest(curve_accuracy[:, curve_task < k, :k])
    during = curve_accuracy[:, curve_task == k, :k]
    return before, _lowest(during), _latest(during)


@metric(
    better="higher",
    meaning="The lowest accuracy that each earlier task ever fell to after it was trained, on average.",
    source="De Lange, van de Ven and Tuytelaars 2023, equation 3 (min-ACC)",
)
def min_accuracy(curve_task: Ints, curve_accuracy: Array, task_steps: Ints) -> Array:
    """min-ACC, (S,): (1/(T-1)) sum_{j < T} min over points after task j of a(n, j).

    NaN for fewer than two tasks, and where the last task is not on the curve.

    Args:
        curve_task: (N,).
        curve_accuracy: (S, N, K).
        task_steps: (K,) steps trained on each task that is done.

    >>> nan = np.nan
    >>> task = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> first, second = [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8], [nan, nan, nan, nan, 0.4, 0.6, 0.8, 0.8]
    >>> curve = np.stack([first, second], axis=1)[None]
    >>> min_accuracy(task, curve, np.array([20, 20])).tolist()
    [0.6]
    """
    met = _tasks_met(curve_task)
    earlier = range(met - 1 if len(task_steps) <= met else 0)
    lowest = [_lowest(curve_accuracy[:, curve_task > j, j : j + 1])[:, 0] for j in earlier]
    if not lowest:
        return np.full(len(curve_accuracy), np.nan)
    return _finite_mean(np.stack(lowest, axis=1))


@metric(
    better="higher",
    meaning="Worst-case accuracy: the last task as it is now, and every earlier task at the worst moment it had.",
    source="De Lange, van de Ven and Tuytelaars 2023, equation 4 (WC-ACC)",
)
def worst_case_accuracy(curve_task: Ints, curve_accuracy: Array, task_steps: Ints) -> Array:
    """WC-ACC, (S,): (1/T) a(now, T) + (1 - 1/T) min-ACC. NaN if the last task is not on the curve.

    >>> nan = np.nan
    >>> task = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> first, second = [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8], [nan, nan, nan, nan, 0.4, 0.6, 0.8, 0.8]
    >>> curve = np.stack([first, second], axis=1)[None]
    >>> worst_case_accuracy(task, curve, np.array([20, 20])).round(4).tolist()  # .8 / 2 + .6 / 2
    [0.7]
    """
    met = _tasks_met(curve_task)
    if met == 0 or len(task_steps) > met:
        return np.full(len(curve_accuracy), np.nan)
    now = curve_accuracy[:, -1, met - 1]
    if met == 1:
        return np.array(now)
    return np.asarray(now / met + (1 - 1 / met) * min_accuracy(curve_task, curve_accuracy, task_steps))


@metric(
    better="lower",
    meaning="Accuracy on earlier tasks lost at its worst while a new task is trained, whether or not it comes back.",
    source="the fall seen in De Lange, van de Ven and Tuytelaars 2023, figure 1",
)
def drop_at_switch(curve_task: Ints, curve_accuracy: Array) -> Array:
    """Drop at the switch to each task, (S, K): mean over earlier tasks of before - lowest during; NaN for the first.

    >>> nan = np.nan
    >>> task = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> first, second = [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8], [nan, nan, nan, nan, 0.4, 0.6, 0.8, 0.8]
    >>> curve = np.stack([first, second], axis=1)[None]
    >>> drop_at_switch(task, curve).round(4).tolist()  # .9 - .6
    [[nan, 0.3]]
    """
    drops = np.full((curve_accuracy.shape[0], curve_accuracy.shape[2]), np.nan)
    for k in range(1, _tasks_met(curve_task)):
        before, lowest, _ = _switch(curve_task, curve_accuracy, k)
        drops[:, k] = _finite_mean(before - lowest)
    return drops


@metric(
    better="lower",
    meaning="Stability gap: the part of the fall at a task switch that is won back before the new task ends.",
    source="De Lange, van de Ven and Tuytelaars 2023, section 3 (forgetting followed by recovery)",
)
def stability_gap(curve_task: Ints, curve_accuracy: Array) -> Array:
    """Stability gap at the switch to each task, (S, K): mean over earlier tasks of max(0, min(before, after) - lowest).

    Forgetting that stays is not in it: what counts is how far accuracy went below both ends. NaN for the first task.

    >>> nan = np.nan
    >>> task = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> first, second = [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8], [nan, nan, nan, nan, 0.4, 0.6, 0.8, 0.8]
    >>> curve = np.stack([first, second], axis=1)[None]
    >>> stability_gap(task, curve).round(4).tolist()  # min(.9, .8) - .6
    [[nan, 0.2]]
    """
    gaps = np.full((curve_accuracy.shape[0], curve_accuracy.shape[2]), np.nan)
    for k in range(1, _tasks_met(curve_task)):
        before, lowest, after = _switch(curve_task, curve_accuracy, k)
        gaps[:, k] = _finite_mean(np.maximum(np.minimum(before, after) - lowest, 0.0))
    return gaps


@metric(
    better="lower",
    meaning="Steps of a new task until earlier tasks are back within one point of their accuracy before it.",
    source="after De Lange, van de Ven and Tuytelaars 2023, section 3",
    unit="steps",
)
def recovery_time(
    curve_step: Ints, curve_task: Ints, curve_accuracy: Array, task_steps: Ints, tolerance: float = 0.01
) -> Array:
    """Recovery time at the switch to each task, (S, K), in steps, averaged over earlier tasks.

    For one earlier task: the steps from the switch to the first point from the lowest on with accuracy >= before -
    tolerance; 0 if it never fell below that. NaN for the first task, and where an earlier task did not come back.

    Args:
        curve_step: (N,).
        curve_task: (N,).
        curve_accuracy: (S, N, K).
        task_steps: (K,) steps trained on each task.
        tolerance: how close counts as back, a fraction.

    >>> nan = np.nan
    >>> step, task = np.arange(5, 41, 5), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> first, second = [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8], [nan, nan, nan, nan, 0.4, 0.6, 0.8, 0.8]
    >>> curve = np.stack([first, second], axis=1)[None]
    >>> recovery_time(step, task, curve, np.array([20, 20])).tolist()  # back at .9 at step 35 = 15 steps in
    [[nan, 15.0]]
    """
    expect(tolerance >= 0, "tolerance", ">= 0", tolerance)
    times = np.full((curve_accuracy.shape[0], curve_accuracy.shape[2]), np.nan)
    for k in range(1, _tasks_met(curve_task)):
        inside = curve_task == k
        if not inside.any():  # a task of fewer steps than lie between two points
            continue
        steps = curve_step[inside] - int(task_steps[:k].sum())
        before, lowest, _ = _switch(curve_task, curve_accuracy, k)
        measured = np.isfinite(before) & np.isfinite(lowest)
        goal = np.where(measured, before - tolerance, 0.0)[:, None]
        during = np.where(np.isfinite(curve_accuracy[:, inside, :k]), curve_accuracy[:, inside, :k], np.inf)
        since_lowest = np.arange(len(steps))[None, :, None] >= during.argmin(axis=1)[:, None]
        back = (during >= goal) & since_lowest & np.isfinite(during)
        when = np.where(back.any(axis=1), steps[back.argmax(axis=1)].astype(np.float64), np.nan)
        when = np.where((during >= goal).all(axis=1), 0.0, when)
        times[:, k] = mean_where(when, measured)
    return times


@metric(
    better="higher",
    meaning="Anytime accuracy: the mean over training of the accuracy on all tasks seen so far.",
    source="Koh et al. 2022 (CLIB), section 4 (AUC of the online accuracy)",
)
def area_under_online_curve(curve_step: Ints, curve_accuracy: Array) -> Array:
    """Area under the online curve divided by its length, (S,): sum_n f(n) d(n) / sum_n d(n).

    f(n) is the mean accuracy over the tasks measured at point n, d(n) the steps since the point before.

    >>> nan = np.nan
    >>> first, second = [0.5, 0.8, 0.9, 0.9, 0.6, 0.7, 0.9, 0.8], [nan, nan, nan, nan, 0.4, 0.6, 0.8, 0.8]
    >>> curve = np.stack([first, second], axis=1)[None]
    >>> area_under_online_curve(np.arange(5, 41, 5), curve).round(4).tolist()  # (.5+.8+.9+.9+.5+.65+.85+.8) / 8
    [0.7375]
    """
    height = _finite_mean(curve_accuracy)
    width = np.broadcast_to(np.diff(curve_step, prepend=0), height.shape)
    known = np.isfinite(height)
    span = np.where(known, width, 0).sum(axis=1)
    area = np.where(known, height * width, 0.0).sum(axis=1)
    return np.asarray(np.where(span > 0, area / np.maximum(span, 1), np.nan))


@metric(
    better="higher",
    meaning="How fast a new task is picked up: mean accuracy on it over its first steps.",
    source="Chaudhry et al. 2019 (A-GEM), equation 5 (LCA)",
)
def learning_curve_area(
    accuracy: Array, curve_step: Ints, curve_task: Ints, curve_accuracy: Array, task_steps: Ints, beta: int = 10
) -> Array:
    """Learning curve area, (S,): LCA = (1/(beta+1)) sum_{b <= beta} Z(b), Z(b) = (1/T) sum_k a(k, b, k).

    a(k, b, k) is the accuracy on task k after b steps of task k. Between the points of the curve it is interpolated, so
    the value is the paper's when the curve has a point every step; b = 0 comes from the accuracy matrix.

    Args:
        accuracy: (S, K+1, K).
        curve_step: (N,).
        curve_task: (N,).
        curve_accuracy: (S, N, K).
        task_steps: (K,) steps trained on each task.
        beta: steps of a task that count.

    >>> R = np.array([[[0.2], [0.8]]])
    >>> step, task, curve = np.array([5, 10, 20]), np.array([0, 0, 0]), np.array([[[0.7], [0.7], [0.8]]])
    >>> learning_curve_area(R, step, task, curve, np.array([20])).round(4).tolist()  # (.2+.3+.4+.5+.6+.7*6) / 11
    [0.5636]
    """
    expect(beta >= 0, "beta", ">= 0", beta)
    at = np.arange(beta + 1)
    met = _tasks_met(curve_task)
    areas = np.full((len(accuracy), met), np.nan)
    for k in range(met):
        inside = curve_task == k
        if not inside.any():
            continue
        steps = np.concatenate([[0], curve_step[inside] - int(task_steps[:k].sum())])
        for s in range(len(accuracy)):
            heights = np.concatenate([accuracy[s, k, k : k + 1], curve_accuracy[s, inside, k]])
            areas[s, k] = np.interp(at, steps, heights).mean()
    return _finite_mean(areas)
