"""Figures of where in the network it is forgotten: from the measures that need the network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import mean_where
from cl.report.figure import Figure, HeatMap, Panel, Table
from cl.report.member import Member
from cl.statistics.intervals import interval

Array = NDArray[np.float64]
READ_OUTS = {
    "own": "Its own head",
    "probe_all": "A new head for all tasks",
    "probe_task": "A new head for the task alone",
    "nearest_mean": "Nearest class mean",
}
LAYERS = ("cka", "feature_drift", "dormant_units", "effective_rank", "weight_drift_total", "fisher_overlap_newest")
TITLES = {
    "cka": "Likeness of old tasks' representations (CKA)",
    "feature_drift": "Drift of old tasks' representations",
    "dormant_units": "Dormant units",
    "effective_rank": "Effective rank",
    "weight_drift_total": "Drift of the weights",
    "fisher_overlap_newest": "Overlap of Fisher information, old tasks with the newest",
}


def items(members: Sequence[Member]) -> list[Figure | HeatMap | Table | None]:
    """Return what can be shown of the measures that the runs took."""
    return [
        read_outs(members),
        *(by_layer(members, name) for name in LAYERS),
        over_tasks(members),
        confusions(members),
        pairs(members),
        relearning(members),
    ]


def having(members: Sequence[Member], name: str) -> list[Member]:
    """Return the members whose runs took a measure."""
    return [m for m in members if name in m.seen]


def _old_tasks(values: Array) -> Array:
    """Return (S, K-1): what a quantity (S, trained, task) says of all tasks but the last, after the last."""
    return np.asarray(values[:, -1, :-1])


def read_outs(members: Sequence[Member]) -> Figure | None:
    """Accuracy on every task at the end: by the strategy's head, and by new read-outs of its features."""
    shown = having(members, "probe_all")
    if not shown:
        return None
    k = shown[0].n_tasks
    x = np.arange(k, dtype=np.float64)
    panels = []
    for kind, title in READ_OUTS.items():
        points = []
        for i, m in enumerate(shown):
            met = m.seen["probe_all"][1].shape[1]  # tasks: fewer than K of an unfinished run
            values = m.group.accuracy[:, met, :met] if kind == "own" else m.seen[kind][1][:, -1]
            points.append(m.beside(x[:met], values, i, len(shown), (0, 1)))
        panels.append(Panel(title, tuple(points)))
    return Figure(
        "read_outs",
        "Does the representation forget, or the head?",
        "Accuracy on each task at the end of the run: by the head of the strategy, and by new read-outs trained on the "
        "frozen features. What a new head wins back was not lost from the representation.",
        "task",
        "accuracy",
        tuple(panels),
        (0.0, 1.0),
        x_names=tuple(str(j + 1) for j in range(k)),
    )


def by_layer(members: Sequence[Member], name: str) -> Figure | None:
    """A quantity of every layer at the end of the run; of old tasks where it is told by task.

    Members may have different layers: each has points above its own.
    """
    shown = having(members, name)
    if not shown:
        return None
    facts = shown[0].seen[name][0]
    axis = facts["axes"][-1]
    layers = [m.seen[name][0]["names"][axis] for m in shown]
    names = tuple(dict.fromkeys(layer for own in layers for layer in own))
    told_by_task = "task" in facts["axes"][1:-1]
    points = []
    for i, m in enumerate(shown):
        values = m.seen[name][1][:, -1]
        if told_by_task:
            old = np.moveaxis(values[:, :-1], 1, 2)
            values = mean_where(old, np.isfinite(old))
        if np.isfinite(values).any():
            x = np.array([float(names.index(layer)) for layer in layers[i]])
            points.append(m.beside(x, values, i, len(shown)))
    if not points:
        return None
    where = " Mean over all tasks but the last, at the end of the run." if told_by_task else " At the end of the run."
    return Figure(
        f"layers_{name}",
        TITLES[name],
        f"{facts['meaning']}{_direction(facts['better'])}{where}",
        axis,
        f"{name.replace('_', ' ')} [{facts['unit']}]" if facts["unit"] != "fraction" else name.replace("_", " "),
        (Panel("", tuple(points)),),
        x_names=names,
        wide=False,
    )


def _direction(better: str) -> str:
    return f" {better.capitalize()} is better." if better else ""


def over_tasks(members: Sequence[Member]) -> Figure | None:
    """Signs of lost plasticity after every task."""
    shown = having(members, "dormant_units")
    if not shown:
        return None
    x = np.arange(shown[0].n_tasks + 1, dtype=np.float64)
    panels = [
        Panel(title, tuple(m.line(x[: m.seen[name][1].shape[1]], m.seen[name][1].mean(axis=2)) for m in shown))
        for name, title in (("dormant_units", "Dormant units"), ("effective_rank", "Effective rank"))
    ]
    return Figure(
        "plasticity",
        "Plasticity over the run",
        "Share of units that hardly react to any sample of the task just trained, and number of directions the "
        "representation uses as share of its width, mean over blocks. More dormant units and a lower rank go with a "
        "network that learns worse.",
        "tasks trained",
        "share",
        tuple(panels),
        (0.0, 1.0),
        wide=False,
    )


def _matrix(members: Sequence[Member], name: str, title: str, reading: str, **options: object) -> HeatMap | None:
    shown = having(members, name)
    if not shown:
        return None
    found = [interval(m.seen[name][1][:, -1]) for m in shown]
    rows, columns = (max(f.mean.shape[i] for f in found) for i in (0, 1))  # unfinished runs met fewer tasks
    return HeatMap(
        name,
        title,
        reading,
        tuple(m.label for m in shown),
        tuple(m.style for m in shown),
        tuple(_grown(f.mean, rows, columns) for f in found),
        tuple(_grown(f.half, rows, columns) for f in found),
        first_row=1,
        **options,  # type: ignore[arg-type]
    )


def _grown(matrix: Array, rows: int, columns: int) -> Array:
    """Return a matrix with empty rows and columns added."""
    missing = ((0, rows - matrix.shape[0]), (0, columns - matrix.shape[1]))
    return np.pad(matrix, missing, constant_values=np.nan)


def confusions(members: Sequence[Member]) -> HeatMap | None:
    """Which task's classes the samples of each task are taken for."""
    return _matrix(
        members,
        "task_confusion",
        "Which task samples are taken for",
        "Row: the task a sample is from. Column: the task whose class it is taken for, at the end of the run; a bright "
        "last column means that old classes are taken for new ones.",
        rows="task of the sample",
        columns="task of the prediction",
        value="share of samples",
    )


def pairs(members: Sequence[Member]) -> HeatMap | None:
    """Cosine between the gradients of every two tasks."""
    return _matrix(
        members,
        "gradient_cosine",
        "Cosine between the gradients of tasks",
        "At the end of the run: below 0, a step for one task hurts the other.",
        rows="task",
        columns="other task",
        value="cosine",
        low=-1.0,
    )


def relearning(members: Sequence[Member]) -> Figure | None:
    """Savings in relearning of every old task."""
    shown = having(members, "savings")
    if not shown:
        return None
    k = shown[0].n_tasks
    x = np.arange(k - 1, dtype=np.float64)
    points = [m.beside(x, m.seen["savings"][1][:, :-1], i, len(shown), (-np.inf, 1)) for i, m in enumerate(shown)]
    return Figure(
        "savings",
        "Savings in relearning",
        "The part of the training that relearning an old task takes less than learning it anew: 1 is nothing to redo, "
        "0 as if never learned, below 0 a network that learns worse than a new one.",
        "task",
        "savings",
        (Panel("", tuple(points)),),
        x_names=tuple(str(j + 1) for j in range(k - 1)),
        wide=False,
    )
