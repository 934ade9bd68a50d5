"""Figures of memory over distance: from the measure `cl.distance.measure.Distance`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import mean_where
from cl.report.figure import Figure, HeatMap, Panel, Series, Table
from cl.report.member import Member
from cl.statistics.intervals import interval

Array = NDArray[np.float64]


def items(members: Sequence[Member]) -> list[Figure | HeatMap | Table | None]:
    """Return what can be shown of the runs that took the measure."""
    before = (recall, half_lives, gradients, states, timescales, attention, gates)
    return [*(make(members) for make in before), *addresses(members), drift(members)]


def _having(members: Sequence[Member], name: str) -> list[Member]:
    return [m for m in members if name in m.seen]


def _line(member: Member, x: Array, values: Array) -> Series:
    """Return a line of values (S, N) >= 0 with a band over seeds."""
    found = interval(_known(values))
    return Series(member.label, member.style, x[: len(found.mean)], found.mean, np.maximum(found.low, 0), found.high)


def _known(values: Array) -> Array:
    """Return values (S, N) without the last columns, where no seed has one: sequences may be shorter than the axis.

    >>> _known(np.array([[1.0, np.nan, 2.0, np.nan]])).tolist()
    [[1.0, nan, 2.0]]
    """
    there = np.flatnonzero(np.isfinite(values).any(0))
    return values[:, : int(there[-1]) + 1] if len(there) else values


def recall(members: Sequence[Member]) -> Figure | None:
    """Recall against distance after every task: the two forgettings in one figure."""
    shown = _having(members, "recall_by_distance")
    if not shown:
        return None
    panels = []
    for k in range(1, 1 + min(shown[0].n_tasks, max(_reached(m, "recall_by_distance") for m in shown))):
        series = []
        for m in shown:
            x = np.array([float(d) for d in _distances(m)])
            if _reached(m, "recall_by_distance") >= k:
                seen = np.moveaxis(m.seen["recall_by_distance"][1][:, k, :k], 1, 2)
                series.append(m.line(x, mean_where(seen, np.isfinite(seen))))
        panels.append(Panel(f"after task {k}" if shown[0].n_tasks > 1 else "", tuple(series)))
    if not panels:
        return None
    return Figure(
        "recall_by_distance",
        "Recall against distance",
        "How well what was read is given back after this distance, mean over the tasks trained so far. A line that "
        "falls to the right forgets over distance; a line that falls from panel to panel forgets across tasks.",
        _counts(shown[0]),
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
        values, reached = m.seen["recall_half_life"][1], _reached(m, "recall_half_life")
        cells = (_half_life(values[:, k, k - 1], _distances(m)[-1]) for k in range(1, min(tasks, reached) + 1))
        rows.append((m.label, *cells, *("-",) * (tasks - reached)))
    return Table(
        "recall_half_life",
        "Half-life of recall",
        f"Distance ({_counts(shown[0])}), beyond the one recalled best, at which half of the recall above chance is "
        "lost, on the task just trained: median over seeds, with the lowest and highest 95 % limit over seeds. "
        "Seeds that recall nothing above chance do not enter; then it is said how many do.",
        ("strategy", *(f"after task {k}" for k in range(1, tasks + 1))),
        tuple(rows),
    )


def _reached(member: Member, name: str) -> int:
    """Return how many tasks a quantity told ``after task`` was taken after: fewer than K of an unfinished run."""
    return int(member.seen[name][1].shape[1]) - 1


def _counts(member: Member) -> str:
    """Return what a distance counts."""
    return str(member.seen["recall_by_distance"][0]["axes"][-1])


def _distances(member: Member) -> list[str]:
    facts = member.seen["recall_by_distance"][0]
    return [str(d) for d in facts["names"][facts["axes"][-1]]]


def _half_life(found: Array, longest: str) -> str:
    """Return the cell for values (S, bound) of one task."""
    there = int((~np.isnan(found[:, 0])).sum())
    if there == 0:
        return "not above chance"
    numbers = [median(found[:, 0]), np.nanmin(found[:, 1]), np.nanmax(found[:, 2])]
    words = [f"{n:.1f}" if np.isfinite(n) else f"> {longest}" for n in numbers]
    of = f" ({there} of {len(found)} seeds)" if there < len(found) else ""
    return f"{words[0]} [{words[1]}, {words[2]}]{of}"


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


def states(members: Sequence[Member]) -> Figure | None:
    """Norm of the Jacobian of the state against distance, layer by layer, at the end of the run."""
    shown = _having(members, "state_gradient_by_distance")
    if not shown:
        return None
    panels = []
    for layer in range(max(m.seen["state_gradient_by_distance"][1].shape[2] for m in shown)):
        series = []
        for m in shown:
            values = m.seen["state_gradient_by_distance"][1][:, -1]
            if values.shape[1] > layer:
                series.append(_line(m, np.arange(values.shape[2], dtype=np.float64), values[:, layer]))
        panels.append(Panel(f"layer {layer + 1}", tuple(series)))
    return Figure(
        "state_gradient_by_distance",
        "Influence of the state against distance",
        "How strongly the last state of a recurrent layer depends on its state this many steps before (largest "
        "singular value of the Jacobian), at the end of the run. Below 1 the state is forgotten; far above it, small "
        "changes grow and learning is unstable.",
        "steps back",
        "norm of the Jacobian",
        tuple(panels),
        log="y",
        wide=False,
    )


def timescales(members: Sequence[Member]) -> Table | None:
    """How fast the influence of the state falls, layer by layer."""
    shown = _having(members, "state_timescale")
    if not shown:
        return None
    layers = max(m.seen["state_timescale"][1].shape[2] for m in shown)
    rows = []
    for m in shown:
        values = m.seen["state_timescale"][1][:, -1]
        slow = np.where(values > 0, values, np.inf)  # a norm that grows falls to 1/e never
        found = [median(column) for column in np.where(np.isnan(values), np.nan, slow).T]
        cells = [f"{n:.1f}" if np.isfinite(n) else "does not fall" for n in found]
        rows.append((m.label, *cells, *("-",) * (layers - len(cells))))
    return Table(
        "state_timescale",
        "Timescale of the state",
        "Steps in which the influence of the state falls to 1/e, by an exponential fitted to the figure of it: median "
        "over test samples and seeds, at the end of the run.",
        ("strategy", *(f"layer {i + 1}" for i in range(layers))),
        tuple(rows),
    )


def median(values: Array) -> float:
    """Return the middle of values (S,) without NaN, the lower of two; infinity is a value like others.

    >>> median(np.array([20.0, np.inf, np.nan])), median(np.array([np.inf, np.inf, 3.0]))
    (20.0, inf)
    """
    known = np.sort(values[~np.isnan(values)])
    return float(known[(len(known) - 1) // 2]) if len(known) else float("nan")


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
                heads = np.moveaxis(values[:, layer], 1, 2)  # fewer in some layers than in others
                mean = _known(mean_where(heads, np.isfinite(heads)))
                series.append(m.line(np.arange(mean.shape[1], dtype=np.float64), mean))
        panels.append(Panel(f"layer {layer + 1}", tuple(series)))
    return Figure(
        "attention_by_distance",
        "Attention against distance",
        "Attention that a step pays to the step this far before it, mean over heads and places, at the end of the run. "
        "A readout that attends is the last layer.",
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


def addresses(members: Sequence[Member]) -> list[HeatMap]:
    """Where the heads of external memories stand over time, on one sample of the first seed, at the end of the run.

    One picture for each shape of memory and time.
    """
    by_shape: dict[tuple[int, ...], list[tuple[Member, str, Array]]] = {}
    for m in _having(members, "write_addresses"):
        for name in ("write_addresses", "read_addresses"):
            values = m.seen[name][1][0, -1]
            by_shape.setdefault(values.shape, []).append((m, name, values))
    several = len(by_shape) > 1
    return [_addresses(found, several) for found in by_shape.values()]


def _addresses(found: Sequence[tuple[Member, str, Array]], several: bool) -> HeatMap:
    slots, steps = found[0][2].shape
    nothing = np.full((slots, steps), np.nan)
    return HeatMap(
        f"addresses_{slots}x{steps}" if several else "addresses",
        f"Use of the external memory, {slots} slots" if several else "Use of the external memory",
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
        old = np.moveaxis(m.seen["state_drift"][1][:, -1, :-1], 1, 2)
        values = mean_where(old, np.isfinite(old))
        if np.isfinite(values).any():
            series.append(_line(m, np.arange(1, values.shape[1] + 1, dtype=np.float64), values))
    if not series:
        return None
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
