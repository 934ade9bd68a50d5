"""Figures of what is forgotten and when: from the accuracy matrix and the within-task curve."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import mean_where
from cl.metrics.matrix import average_accuracy_by_task
from cl.report import timeline
from cl.report.figure import Figure, HeatMap, Panel, Series, Table
from cl.report.lead import Lead
from cl.report.member import Member
from cl.statistics import retention as forgetting
from cl.statistics.intervals import interval

Array = NDArray[np.float64]
PANELS = 12  # small panels of one figure
POINTS = 14_000  # points of all lines of one figure
FINE = 60  # points of a fitted curve
FAR = 3  # times the longest time seen: a half-life beyond that is a guess


def average(members: Sequence[Member]) -> Figure:
    """Average accuracy over the tasks seen so far, after each task."""
    x = np.arange(1, members[0].n_tasks + 1, dtype=np.float64)
    lines = [m.line(x, average_accuracy_by_task(m.group.accuracy)) for m in members]
    return Figure(
        "average_accuracy",
        "Average accuracy on the tasks seen so far",
        "After each task, the mean test accuracy over all tasks trained up to then. A line that falls is a network "
        "that forgets (or finds later tasks harder).",
        "tasks trained",
        "accuracy",
        (Panel("", tuple(lines)),),
        (0.0, 1.0),
        log="error",
    )


def spread(first: int, last: int, count: int = PANELS) -> list[int]:
    """Return at most `count` whole numbers from `first` to `last`, evenly spread."""
    return sorted(set(np.linspace(first, last, min(last - first + 1, count)).round().astype(int).tolist()))


def of_tasks(members: Sequence[Member]) -> Figure:
    """Accuracy on each task over the whole run: the forgetting curves."""
    k = members[0].n_tasks
    tasks = spread(0, k - 1)
    points = max(20, POINTS // (len(members) * len(tasks)))
    panels = []
    for j in tasks:
        lines = tuple(m.line(*timeline.of_task(m.group, j), points) for m in members)
        panels.append(Panel(f"Task {j + 1}", lines, j, tuple(map(float, range(1, k))), (float(j), j + 1.0)))
    left_out = f" Of {k} tasks, {len(tasks)} are drawn." if len(tasks) < k else ""
    return Figure(
        "forgetting_curves",
        "Forgetting curves: what becomes of each task",
        "One panel a task: its test accuracy while all tasks are trained in turn. The shaded part is its own training; "
        "what is lost to the right of it is forgotten, what rises to the left of it is transfer."
        f"{left_out}",
        "tasks trained",
        "accuracy",
        tuple(panels),
        (0.0, 1.0),
        log="error",
    )


def matrices(members: Sequence[Member]) -> HeatMap:
    """The accuracy matrix of every strategy."""
    found = [interval(m.group.accuracy) for m in members]
    return HeatMap(
        "accuracy_matrix",
        "Accuracy matrices",
        "Row: after how many tasks (0 is before any training). Column: the task tested. Below the diagonal are tasks "
        "trained before, above it tasks not yet trained. Mean over seeds. Outlined: the task just trained.",
        tuple(m.label for m in members),
        tuple(m.style for m in members),
        tuple(f.mean for f in found),
        tuple(f.half for f in found),
        marked=True,
    )


def drops(members: Sequence[Member]) -> Figure:
    """Accuracy drop of each task."""
    k = members[0].n_tasks
    x = np.arange(k, dtype=np.float64)
    points = [m.beside(x, m.values["accuracy_drop"], i, len(members), (-1, 1)) for i, m in enumerate(members)]
    return Figure(
        "accuracy_drop",
        "Accuracy drop of each task",
        "Accuracy right after a task was trained minus accuracy at the end of the run: how much of each task is lost. "
        "Lower is better, 0 is nothing lost.",
        "task",
        "accuracy drop",
        (Panel("", tuple(points)),),
        x_names=tuple(str(j + 1) for j in range(k)),
        wide=False,
    )


def switches(members: Sequence[Member]) -> Figure | None:
    """The beginning of each new task: mean accuracy on the earlier tasks by steps; None where it was not measured."""
    with_curve = [m for m in members if all((r.curve_task > 0).any() for r in m.group.results())]
    k = members[0].n_tasks
    if not with_curve or k < 2:
        return None
    chosen = spread(1, k - 1)
    points = max(20, POINTS // (len(with_curve) * len(chosen) * 2))
    panels = [
        Panel(
            f"Start of task {task + 1}",
            tuple(m.line(*timeline.around_switch(m.group, task), points) for m in with_curve),
            task,
        )
        for task in chosen
    ]
    return Figure(
        "stability_gap",
        "Stability gap: the first steps of each new task",
        "Mean accuracy on all earlier tasks from the last step before a new task (step 0) on. A dip that comes back is "
        "the stability gap (De Lange et al. 2023); what does not come back is forgetting.",
        "steps into the new task",
        "accuracy on earlier tasks",
        tuple(panels),
    )


def retention(members: Sequence[Member]) -> list[Figure | Table | None]:
    """What is left of a task against the steps since it was learned, with the forgetting curve that fits best."""
    series: list[Series] = []
    rows: list[tuple[object, ...]] = []
    for m in members:
        steps = [r.task_steps for r in m.group.results() if len(r.task_steps) == m.n_tasks]
        if len(steps) < len(m.group.runs) or not steps:
            continue
        t, kept = forgetting.retention(m.group.accuracy, np.mean(steps, axis=0).round().astype(np.int64))
        if len(t) == 0:
            continue
        moments = np.unique(t)
        by_moment = np.stack([_mean(kept[:, t == moment]) for moment in moments], axis=1)
        series.append(m.dots(moments, by_moment, (0, np.inf)))
        found = forgetting.fit(t, kept)
        if found is not None:
            x = np.geomspace(moments[0], moments[-1], FINE)
            nothing = np.full(FINE, np.nan)
            series.append(Series(m.label, m.style, x, found(x), nothing, nothing))
            curve = "nothing forgotten" if found.curve == forgetting.NONE else found.curve
            rows.append((m.label, curve, *_life(found, float(moments[-1])), f"{found.advantage:.1f}"))
    if not series:
        return []
    figure = Figure(
        "retention",
        "Retention: what is left after so many steps",
        "Accuracy on a task over its accuracy right after it was trained, mean over tasks, against the steps trained "
        "since (points), and the forgetting curve that fits best (line).",
        "steps since learned",
        "retention",
        (Panel("", tuple(series)),),
        log="x",
        wide=False,
    )
    table = Table(
        "retention_fits",
        "Which curve forgetting follows",
        "Exponential: f + (1 - f) exp(-t / tau), which levels off. Power law: (1 + t / s)^-b, which slows down without "
        "end. Nothing forgotten: retention stays at 1. What has the lowest information criterion (AICc) is shown; an "
        "advantage above 4 over the next is a clear choice. "
        "Half-life: steps until half is left; interval by jackknife over seeds.",
        ("strategy", "curve", "half-life [steps]", "95 % interval", "AICc advantage"),
        tuple(rows),
    )
    return [figure, table if rows else None]


def _mean(values: Array) -> Array:
    return mean_where(values, np.isfinite(values))


def _life(found: forgetting.Fit, longest: float) -> tuple[str, str]:
    """Return half-life and interval as text; what lies far beyond the `longest` time seen is not told as a number."""
    if not np.isfinite(found.half_life):
        return "never" if found.curve == forgetting.NONE else "never (levels off above)", "-"
    if found.half_life > FAR * longest:
        return f"more than {longest:.4g}", "-"
    sure = f"{found.low:.4g} to {found.high:.4g}" if np.isfinite(found.low) else "-"
    return f"{found.half_life:.4g}", sure


def differences(members: Sequence[Member], by: Lead) -> Figure | None:
    """Paired differences to the best strategy in what the page ranks `by`, over shared seeds; of finished groups."""
    members = [m for m in members if m.group.finished]
    if not members:
        return None
    best = members[0]
    series = []
    for i, m in enumerate(members[1:]):
        shared = [s for s in m.group.seeds if s in best.group.seeds]
        if len(shared) > 1:
            own, other = (by.values(x)[[x.group.seeds.index(s) for s in shared]] for x in (m, best))
            series.append(m.dots(np.array([float(i)]), (own - other)[:, None]))
    if not series:
        return None
    return Figure(
        "paired_differences",
        f"Paired differences to {best.label}",
        f"{by.capital} minus that of {best.label}, the best here, seed by seed on the same stream. An interval "
        "that does not reach 0 is a difference that seeds alone do not explain (not corrected for many comparisons: "
        "lethe compare gives tests with Holm's correction).",
        "strategy",
        f"difference of {by.words}",
        (Panel("", tuple(series)),),
        x_names=tuple(m.label for m in members[1:]),
        wide=False,
    )
