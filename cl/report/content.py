"""From groups of runs to what the page says of one stream: figures, heat maps, the headline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import last_row, per_replica
from cl.metrics.matrix import average_accuracy, average_accuracy_by_task
from cl.report import timeline
from cl.report.figure import Figure, HeatMap, Panel, Series
from cl.runs import Group, measures
from cl.statistics.intervals import Interval, interval

Array = NDArray[np.float64]
PANELS = 12  # small panels of one figure
POINTS = 14_000  # points of all lines of one figure
STRATEGIES = 24  # strategies drawn; tables have all


@dataclass(frozen=True)
class Member:
    """A group of runs on the page.

    Attributes:
        group: its runs.
        style: its place in the palette, the same on all streams of the page.
        values: metric -> (S,) or (S, K).
    """

    group: Group
    style: int
    values: dict[str, Array]

    @property
    def label(self) -> str:
        """The group's label, marked where the runs are not complete."""
        return self.group.label if self.group.finished else f"{self.group.label} [unfinished]"

    def metric(self, name: str) -> Interval:
        """Mean and interval of a metric, one value a run."""
        return interval(per_replica(self.values[name]))


@dataclass(frozen=True)
class Block:
    """What the page says of one stream.

    Attributes:
        stream: its name.
        members: strategies, the best average accuracy first.
        figures: charts, in the order of the page.
        heat: accuracy matrices.
    """

    stream: str
    members: tuple[Member, ...]
    figures: tuple[Figure, ...]
    heat: HeatMap


def blocks(groups: Sequence[Group]) -> list[Block]:
    """Return one block for each stream with results; groups without any are left to the list of failures."""
    streams: dict[str, list[Group]] = {}
    for g in groups:
        if g.runs:
            streams.setdefault(g.stream, []).append(g)
    labels = list(dict.fromkeys(g.label for g in groups if g.runs))
    return [_block(stream, members, labels) for stream, members in streams.items()]


def _block(stream: str, groups: Sequence[Group], labels: list[str]) -> Block:
    members = [Member(g, labels.index(g.label), measures(g, groups)) for g in groups]
    members.sort(key=lambda m: -float(np.nan_to_num(m.metric("average_accuracy").mean)))
    shown = members[:STRATEGIES]
    figures = [
        average_curve(shown),
        task_curves(shown),
        drops(shown),
        switches(shown),
        differences(shown),
        pareto(shown, "seconds_train", "Accuracy against training time", "seconds of training"),
        pareto(shown, "bytes_stored", "Accuracy against memory", "bytes stored beyond the network"),
    ]
    return Block(stream, tuple(members), tuple(f for f in figures if f is not None), heat_map(shown))


def n_tasks(members: Sequence[Member]) -> int:
    """Number of tasks K of a stream."""
    return int(members[0].group.accuracy.shape[2])


def _series(member: Member, x: Array, values: Array, points: int | None = None, joined: bool = True) -> Series:
    """Make a series of values (S, N) with an interval over seeds, thinned to about `points`."""
    found = interval(values)
    if points is not None and len(x) > points:
        keep = timeline.thin(found.mean, points)
        return Series(member.label, member.style, x[keep], found.mean[keep], found.low[keep], found.high[keep], joined)
    return Series(member.label, member.style, x, found.mean, found.low, found.high, joined)


def average_curve(members: Sequence[Member]) -> Figure:
    """Average accuracy over the tasks seen so far, after each task."""
    k = n_tasks(members)
    x = np.arange(1, k + 1, dtype=float)
    series = [_series(m, x, average_accuracy_by_task(m.group.accuracy)) for m in members]
    return Figure(
        "average_accuracy",
        "Average accuracy on the tasks seen so far",
        "After each task, the mean test accuracy over all tasks trained up to then. A line that falls is a network "
        "that forgets (or finds later tasks harder); bands are 95 % intervals over seeds.",
        "tasks trained",
        "accuracy",
        (Panel("", tuple(series)),),
        (0.0, 1.0),
        log="error",
    )


def task_curves(members: Sequence[Member]) -> Figure:
    """Accuracy on each task over the whole run: the forgetting curves."""
    k = n_tasks(members)
    tasks = sorted(set(np.linspace(0, k - 1, min(k, PANELS)).round().astype(int).tolist()))
    points = max(20, POINTS // (len(members) * len(tasks)))
    panels = []
    for j in tasks:
        lines = []
        for m in members:
            x, values = timeline.of_task(m.group, j)
            lines.append(_series(m, x, values, points))
        panels.append(Panel(f"Task {j + 1}", tuple(lines), j, tuple(map(float, range(1, k))), (float(j), j + 1.0)))
    left_out = f" Of {k} tasks, {len(tasks)} are drawn." if len(tasks) < k else ""
    return Figure(
        "forgetting_curves",
        "Forgetting curves: what becomes of each task",
        "One panel a task: its test accuracy while all tasks are trained in turn. The shaded part is its own training; "
        "what is lost to the right of it is forgotten, what rises to the left of it is transfer. Bands are 95 % "
        f"intervals over seeds.{left_out}",
        "tasks trained",
        "accuracy",
        tuple(panels),
        (0.0, 1.0),
        log="error",
    )


def drops(members: Sequence[Member]) -> Figure:
    """Accuracy drop of each task."""
    k = n_tasks(members)
    width = 0.7 / max(len(members), 1)
    series = []
    for i, m in enumerate(members):
        x = np.arange(k, dtype=np.float64) + (i - (len(members) - 1) / 2) * width
        series.append(_series(m, x, m.values["accuracy_drop"], joined=False))
    return Figure(
        "accuracy_drop",
        "Accuracy drop of each task",
        "Accuracy right after a task was trained minus accuracy at the end of the run: how much of each task is lost. "
        "Lower is better, 0 is nothing lost; bars are 95 % intervals over seeds.",
        "task",
        "accuracy drop",
        (Panel("", tuple(series)),),
        x_names=tuple(str(j + 1) for j in range(k)),
    )


def switches(members: Sequence[Member]) -> Figure | None:
    """The beginning of each new task: mean accuracy on the earlier tasks, step by step."""
    with_curve = [m for m in members if all(len(r.curve_step) for r in m.group.results())]
    k = n_tasks(members)
    if not with_curve or k < 2:
        return None
    chosen = sorted(set(np.linspace(1, k - 1, min(k - 1, PANELS)).round().astype(int).tolist()))
    points = max(20, POINTS // (len(with_curve) * len(chosen) * 2))
    panels = []
    for task in chosen:
        lines = []
        for m in with_curve:
            x, values = timeline.around_switch(m.group, task)
            lines.append(_series(m, x, values, points))
        panels.append(Panel(f"Start of task {task + 1}", tuple(lines), task))
    return Figure(
        "stability_gap",
        "Stability gap: the first steps of each new task",
        "Mean accuracy on all earlier tasks from the last step before a new task (step 0) on. A dip that comes back is "
        "the stability gap; what does not come back is forgetting.",
        "steps into the new task",
        "accuracy on earlier tasks",
        tuple(panels),
    )


def differences(members: Sequence[Member]) -> Figure | None:
    """Paired differences of average accuracy to the best strategy, over shared seeds."""
    best = members[0]
    series = []
    for i, m in enumerate(members[1:]):
        shared = [s for s in m.group.seeds if s in best.group.seeds]
        if len(shared) < 2:
            continue
        own, other = (average_accuracy(g.accuracy[[g.seeds.index(s) for s in shared]]) for g in (m.group, best.group))
        series.append(_series(m, np.array([float(i)]), (own - other)[:, None], joined=False))
    if not series:
        return None
    names = tuple(m.label for m in members[1:])
    return Figure(
        "paired_differences",
        f"Paired differences to {best.label}",
        f"Average accuracy minus that of {best.label}, the best here, seed by seed on the same stream. An interval "
        "(95 %) that does not reach 0 is a difference that seeds alone do not explain.",
        "strategy",
        "difference of average accuracy",
        (Panel("", tuple(series)),),
        x_names=names,
    )


def cost(group: Group, name: str) -> Array:
    """Return a cost of every run (S,); ``bytes_stored`` is the sum of the bytes of all kinds."""
    if name != "bytes_stored":
        return group.cost(name)
    kinds = {c for r in group.results() for c in r.costs if c.startswith("bytes_")}
    columns = [np.nan_to_num(group.cost(c)) for c in kinds]
    return np.asarray(np.sum(columns or [np.zeros(len(group.results()))], axis=0))


def pareto(members: Sequence[Member], name: str, title: str, x_label: str) -> Figure | None:
    """Average accuracy against a cost; strategies that nothing beats in both are named in the caption."""
    points = []
    for m in members:
        spent, reached = interval(cost(m.group, name)), m.metric("average_accuracy")
        if np.isfinite(spent.mean):
            points.append((float(spent.mean), reached, m))
    if len(points) < 2 or len({p[0] for p in points}) < 2:
        return None
    front = [
        m.label
        for x, y, m in points
        if not any(a <= x and b.mean >= y.mean and (a < x or b.mean > y.mean) for a, b, _ in points)
    ]
    series = [
        Series(m.label, m.style, np.array([x]), y.mean[None], y.low[None], y.high[None], joined=False)
        for x, y, m in points
    ]
    return Figure(
        f"pareto_{name}",
        title,
        f"Up and to the left is better. Not beaten in both by any other: {', '.join(front)}.",
        x_label,
        "average accuracy",
        (Panel("", tuple(series)),),
        log="x",
        named=True,
    )


def heat_map(members: Sequence[Member]) -> HeatMap:
    """The accuracy matrix of every strategy."""
    found = [interval(m.group.accuracy) for m in members]
    return HeatMap(
        "accuracy_matrix",
        "Accuracy matrices",
        "Row: after how many tasks (0 is before any training). Column: the task tested. Below the diagonal are tasks "
        "trained before, above it tasks not yet trained. Mean over seeds.",
        tuple(m.label for m in members),
        tuple(f.mean for f in found),
        tuple(f.half for f in found),
    )


def headline(block: Block) -> str:
    """Return the result in a sentence or two."""
    best, worst = block.members[0], block.members[-1]
    k = n_tasks(block.members)
    kept = [float(last_row(m.group.accuracy)[:, 0].mean()) for m in (best, worst)]

    def told(m: Member) -> str:
        found = m.metric("average_accuracy")
        sure = f" ± {float(found.half):.3f}" if np.isfinite(found.half) else ""
        return f"{m.label} reaches {float(found.mean):.3f}{sure}"

    text = f"After {k} tasks {told(best)} average accuracy and still has {kept[0]:.3f} on the first task"
    if worst is not best:
        text += f"; {told(worst)} and has {kept[1]:.3f} left"
    return text + "."
