"""Figures of memory over distance: from the measure `cl.distance.measure.Distance`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cl.report.figure import Figure, HeatMap, Panel, Series, Table
from cl.report.member import Member
from cl.statistics.intervals import interval

Array = NDArray[np.float64]


def items(members: Sequence[Member]) -> list[Figure | HeatMap | Table | None]:
    """Return what can be shown of the runs that took the measure."""
    makers = (recall, half_lives, gradients, attention, gates, addresses, drift)
    return [make(members) for make in makers]


def _having(members: Sequence[Member], name: str) -> list[Member]:
    return [m for m in members if name in m.seen]


def _line(member: Member, x: Array, values: Array) -> Series:
    """Return a line of values (S, N) with a band over seeds."""
    found = interval(values)
    return Series(member.label, member.style, x, found.mean, found.low, found.high)


def recall(members: Sequence[Member]) -> Figure | None:
    """Recall against distance after every task: the two forgettings in one figure."""
    shown = _having(members, "recall_by_distance")
    if not shown:
        return None
    panels = []
    for k in range(1, shown[0].n_tasks + 1):
        series = []
        for m in shown:
            facts, values = m.seen["recall_by_distance"]
            x = np.array([float(d) for d in facts["names"]["distance"]])
            if values.shape[1] > k:
                series.append(m.line(x, values[:, k, :k].mean(1)))
        panels.append(Panel(f"after task {k}" if shown[0].n_tasks > 1 else "", tuple(series)))
    return Figure(
        "recall_by_distance",
        "Recall against distance",
        "How well what was read this many steps before is given back, mean over the tasks trained so far. A line that "
        "falls to the right forgets over distance; a line that falls from panel to panel forgets across tasks.",
        "steps between cue and use",
        "recall",
        tuple(panels),
        (0.0, 1.0),
        log="x",
    )


def half_lives(members: Sequence[Member]) -> Table | None:
    """Half-life of recall after every task."""
    shown = _having(members, "recall_half_life")
    if not shown:
        return None
    tasks = shown[0].n_tasks
    rows = []
    for m in shown:
        longest = m.seen["recall_by_distance"][0]["names"]["distance"][-1]
        cells = [_half_life(m.seen["recall_half_life"][1][:, k], k, longest) for k in range(1, tasks + 1)]
        rows.append((m.label, *cells))
    return Table(
        "recall_half_life",
        "Half-life of recall",
        "Distance, beyond the one recalled best, at which half of the recall above chance is lost, on the task just "
        "trained: median over seeds, with the lowest and highest 95 % limit over seeds.",
        ("strategy", *(f"after task {k}" for k in range(1, tasks + 1))),
        tuple(rows),
    )


def _half_life(values: Array, k: int, longest: str) -> str:
    """Return the cell for values (S, task, bound) after task k."""
    found = values[:, k - 1]
    if np.isnan(found[:, 0]).all():
        return "not above chance"
    numbers = [np.nanmedian(found[:, 0]), np.nanmin(found[:, 1]), np.nanmax(found[:, 2])]
    words = [f"{n:.1f}" if np.isfinite(n) else f"> {longest}" for n in numbers]
    return f"{words[0]} [{words[1]}, {words[2]}]"


def gradients(members: Sequence[Member]) -> Figure | None:
    """Norm of the Jacobian against distance at the end of the run."""
    shown = _having(members, "gradient_by_distance")
    if not shown:
        return None
    series = []
    for m in shown:
        values = m.seen["gradient_by_distance"][1][:, -1]
        series.append(_line(m, np.arange(values.shape[1], dtype=np.float64), values))
    return Figure(
        "gradient_by_distance",
        "Gradient flow against distance",
        "How strongly what the head reads at the last step depends on the input this many steps before (norm of the "
        "Jacobian), at the end of the run. Where it vanishes, nothing can be learned about so distant a step.",
        "steps back",
        "norm of the Jacobian",
        (Panel("", tuple(series)),),
        log="y",
        wide=False,
    )


def attention(members: Sequence[Member]) -> Figure | None:
    """Attention mass against distance, mean over heads, layer by layer, at the end of the run."""
    shown = _having(members, "attention_by_distance")
    if not shown:
        return None
    panels = []
    for layer in range(max(m.seen["attention_by_distance"][1].shape[2] for m in shown)):
        series = []
        for m in shown:
            values = m.seen["attention_by_distance"][1][:, -1]
            if values.shape[1] > layer:
                series.append(_line(m, np.arange(values.shape[3], dtype=np.float64), values[:, layer].mean(1)))
        panels.append(Panel(f"layer {layer + 1}", tuple(series)))
    return Figure(
        "attention_by_distance",
        "Attention against distance",
        "Attention that a step pays to the step this far before it, mean over heads and places, at the end of the run.",
        "steps back",
        "attention",
        tuple(panels),
        log="y",
        wide=False,
    )


def gates(members: Sequence[Member]) -> Figure | None:
    """Retention times of all units, from the shortest to the longest, at the end of the run."""
    shown = _having(members, "retention_time")
    if not shown:
        return None
    series = []
    for m in shown:
        values = m.seen["retention_time"][1][:, -1]
        ordered = np.sort(values.reshape(len(values), -1), axis=1)
        series.append(_line(m, (np.arange(ordered.shape[1]) + 0.5) / ordered.shape[1], ordered))
    return Figure(
        "retention_time",
        "How long units keep their state",
        "Steps until 1/e of a unit's state is left, as its gates imply on test data, units in rising order: a line "
        "that is high on the right has a few units with a long memory.",
        "share of units",
        "steps",
        (Panel("", tuple(series)),),
        log="y",
        wide=False,
    )


def addresses(members: Sequence[Member]) -> HeatMap | None:
    """Where the heads of external memories stand over time, on one sample of the first seed, at the end of the run."""
    shown = _having(members, "write_addresses")
    if not shown:
        return None
    names = ("write_addresses", "read_addresses")
    shape = shown[0].seen[names[0]][1].shape[2:]
    found = [(m, name, m.seen[name][1][0, -1]) for m in shown for name in names]
    found = [entry for entry in found if entry[2].shape == shape]
    nothing = np.full(shape, np.nan)
    return HeatMap(
        "addresses",
        "Use of the external memory",
        "Where the heads stand at every step of one test sample of the last task, at the end of the run, first seed. A "
        "bright cell is a head on that slot at that step. What is read where it was written, later, was remembered.",
        tuple(f"{m.label}: {name.split('_')[0]}" for m, name, _ in found),
        tuple(m.style for m, _, _ in found),
        tuple(values for _, _, values in found),
        (nothing,) * len(found),
        rows="slot",
        columns="step",
        value="address",
        first_row=1,
    )


def drift(members: Sequence[Member]) -> Figure | None:
    """Drift of the states on old tasks, step by step, at the end of the run."""
    shown = [m for m in _having(members, "state_drift") if m.n_tasks > 1]
    if not shown:
        return None
    series = []
    for m in shown:
        values = m.seen["state_drift"][1][:, -1, :-1].mean(1)
        series.append(_line(m, np.arange(1, values.shape[1] + 1, dtype=np.float64), values))
    return Figure(
        "state_drift",
        "Drift of the state on old tasks",
        "How far the state at each step moved since a task was learned, relative to its size, mean over all tasks but "
        "the last, at the end of the run. A line that rises carries the change along the sequence.",
        "step",
        "relative distance",
        (Panel("", tuple(series)),),
        wide=False,
    )
