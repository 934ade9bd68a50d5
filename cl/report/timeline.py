"""Accuracy over the course of a run, on an axis that all strategies share.

x counts tasks: x = 2.5 is halfway through the third task, however many steps the strategy took for it. So strategies
that train longer on a task (joint, early stopping) stand beside the others.
"""

import numpy as np
from numpy.typing import NDArray

from cl.groups import Group
from cl.results import Results

Array = NDArray[np.float64]
ZOOM = 0.4  # part of a task shown after its start
NEAR = 1e-6  # of a task: a point of the curve this near to the end of a task is the end


def of_task(group: Group, j: int) -> tuple[Array, Array]:
    """Return x (N,) and the accuracy on task j of every run (S, N).

    These are the points of the within-task curve where there are any, and the column of the accuracy matrix (x = 0
    before any training, k after task k) where the curve has no point.
    """
    rows = np.arange(group.accuracy.shape[2] + 1, dtype=np.float64)
    found = [_curve(r, j) for r in group.results()]
    if any(len(x) == 0 for x, _ in found):
        return rows, group.accuracy[:, :, j]
    fine = max((x for x, _ in found), key=len)
    fine = fine[np.abs(fine[:, None] - rows).min(axis=1) > NEAR]
    curves = np.stack([np.interp(fine, x, y, right=np.nan) for x, y in found])
    x = np.concatenate([rows, fine])
    order = np.argsort(x)
    return x[order], np.concatenate([group.accuracy[:, :, j], curves], axis=1)[:, order]


def _curve(results: Results, j: int) -> tuple[Array, Array]:
    """Return x and accuracy of the points of the curve where task j was measured, without points of failed tasks."""
    if results.curve_accuracy.shape[1] == 0:
        return np.zeros(0), np.zeros(0)
    y = results.curve_accuracy[0, :, j]
    good = np.isfinite(y)
    return progress(results)[good], y[good]


def progress(results: Results) -> Array:
    """Return x of every point of the curve: (N,)."""
    steps = _steps(results)
    starts = np.concatenate([[0], np.cumsum(steps)])
    task = results.curve_task
    return np.asarray(task + (results.curve_step - starts[task]) / np.maximum(steps[task], 1))


def _steps(results: Results) -> NDArray[np.int64]:
    """Return the steps of each task (K,); a task in progress has those of the one before, or of its last point."""
    steps = list(results.task_steps)
    while len(steps) < results.n_tasks:
        inside = results.curve_step[results.curve_task == len(steps)]
        done = int(inside.max()) - sum(steps) if len(inside) else 0
        steps.append(max(done, steps[-1] if steps else done))
    return np.asarray(steps, np.int64)


def around_switch(group: Group, k: int) -> tuple[Array, Array]:
    """Return steps into task k (N,), 0 being the last moment before it, and mean accuracy on tasks before k, (S, N)."""
    lines: list[tuple[Array, Array]] = []
    for r in group.results():
        start, steps = int(_steps(r)[:k].sum()), int(_steps(r)[k])
        inside = r.curve_task == k
        at = (r.curve_step[inside] - start).astype(float)
        earlier = r.curve_accuracy[0, inside, :k]
        measured = np.isfinite(earlier).any(axis=0) if len(at) else np.zeros(k, bool)
        if not measured.any():
            continue
        before = _last_before(r, k)[measured].mean()
        keep = at <= max(ZOOM * steps, at[min(9, len(at) - 1)])
        lines.append(
            (np.concatenate([[0.0], at[keep]]), np.concatenate([[before], earlier[keep][:, measured].mean(axis=1)]))
        )
    if not lines:
        return np.zeros(0), np.zeros((1, 0))
    longest = max((x for x, _ in lines), key=len)
    return longest, np.stack([np.interp(longest, x, y, right=np.nan) for x, y in lines])


def _last_before(results: Results, k: int) -> Array:
    """Return the accuracy on tasks 0..k-1 at the last point before task k, from the matrix where the curve has none."""
    points = np.flatnonzero(results.curve_task < k)
    if len(points) and results.curve_step[points[-1]] == _steps(results)[:k].sum():
        found = results.curve_accuracy[0, points[-1], :k]
        return np.asarray(np.where(np.isfinite(found), found, results.accuracy[0, k, :k]))
    return np.asarray(results.accuracy[0, k, :k])


def thin(y: Array, points: int) -> NDArray[np.int64]:
    """Return the places (n,) of about `points` of the values: first, last, and the lowest and highest of every stretch.

    So a dip is never thinned away.
    """
    keep = {0, len(y) - 1}
    for part in np.array_split(np.arange(len(y)), max(points // 2, 1)):
        finite = part[np.isfinite(y[part])]
        if len(finite):
            keep |= {int(finite[y[finite].argmin()]), int(finite[y[finite].argmax()])}
    return np.array(sorted(keep), np.int64)
