"""Figures of streams whose loss says more than an accuracy: texts in bits per character, numbers in squared error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import last_row
from cl.metrics.matrix import average_accuracy_by_task
from cl.report.figure import Figure, HeatMap, Panel, Series
from cl.report.member import Member
from cl.statistics.intervals import interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How a loss is told.

    Attributes:
        field: of `Results`, the matrix of losses (S, K+1, K).
        metric: its mean at the end of the run.
        gained: the metric of what each task lost of it.
        unit: as words.
        task: what a task is called.
        names: of the files of the mean, the matrix and what is lost.
        lost: title of the figure of what is lost.
        said: what a strategy does with so much of it, {}.
        digits: format of a value in a sentence.
        note: what else a reader needs.
        small: True where good values are near 0, see `HeatMap`.
    """

    field: str
    metric: str
    gained: str
    unit: str
    task: str
    names: tuple[str, str, str]
    lost: str
    said: str
    digits: str
    note: str = ""
    small: bool = False

    def matrix(self, member: Member) -> Array:
        """Return the losses of all runs: (S, K+1, K)."""
        return np.concatenate([getattr(r, self.field) for r in member.group.results()])

    def readers(self, members: Sequence[Member]) -> list[Member]:
        """Return the members whose loss is told of this kind; none of a run whose first task goes on."""
        return [m for m in members if self.metric in m.values and np.isfinite(m.metric(self.metric).mean)]


KINDS = (
    Kind(
        "bits", "bits_per_character", "bits_lost", "bits per character", "text",
        ("bits_per_character", "bits_matrix", "bits_lost"), "Bits lost of each text",
        "needs {} bits per character", ".3f", " Of a text read in bytes, a character is a byte.",
    ),
    Kind(
        "errors", "mean_squared_error", "error_gained", "mean squared error", "task",
        ("mean_squared_error", "error_matrix", "error_gained"), "Error gained on each task",
        "has a mean squared error of {}", ".3g",
        " The accuracy below is the share of samples whose every error is under 0.04.",
        small=True,
    ),
)  # fmt: skip


def items(members: Sequence[Member]) -> list[Figure | HeatMap | None]:
    """Return what can be shown of the runs that predicted a text, or numbers."""
    found: list[Figure | HeatMap | None] = []
    for kind in KINDS:
        if shown := kind.readers(members):
            found += [average(kind, shown), matrices(kind, shown), lost(kind, shown)]
    return found


def headline(members: Sequence[Member], when: str) -> str:
    """Return the result in a sentence or two, empty where accuracy tells it; `when` begins it, {} stands for "task"."""
    for kind in KINDS:
        if shown := kind.readers(members):
            return _told(kind, shown, when.format(kind.task))
    return ""


def _told(kind: Kind, members: Sequence[Member], when: str) -> str:
    ranked = sorted(members, key=lambda m: float(m.metric(kind.metric).mean))
    best, worst = ranked[0], ranked[-1]
    kept = [float(last_row(kind.matrix(m))[:, 0].mean()) for m in (best, worst)]

    def told(m: Member) -> str:
        found = m.metric(kind.metric)
        sure = f" ± {float(found.half):{kind.digits}}" if np.isfinite(found.half) else ""
        return f"{m.label} {kind.said.format(f'{float(found.mean):{kind.digits}}{sure}')}"

    text = f"{when} {told(best)} (less is better), {kept[0]:{kind.digits}} on the first"
    return f"{text}; {told(worst)}, {kept[1]:{kind.digits}} on the first." if worst is not best else f"{text}."


def _line(member: Member, x: Array, values: Array) -> Series:
    found = interval(values)
    return Series(member.label, member.style, x, found.mean, np.maximum(found.low, 0), found.high)


def _title(kind: Kind) -> str:
    return kind.unit[0].upper() + kind.unit[1:]


def average(kind: Kind, members: Sequence[Member]) -> Figure:
    """Mean loss over the tasks seen so far, after each task."""
    x = np.arange(1, members[0].n_tasks + 1, dtype=np.float64)
    lines = tuple(_line(m, x, average_accuracy_by_task(kind.matrix(m))) for m in members)
    return Figure(
        kind.names[0],
        f"{_title(kind)} on the {kind.task}s seen so far",
        f"After each {kind.task}, the mean test loss over all {kind.task}s learned up to then. Lower is better; a line "
        f"that rises is a network that forgets (or finds later {kind.task}s harder)."
        f"{kind.note}",
        f"{kind.task}s learned",
        kind.unit,
        (Panel("", lines),),
    )


def matrices(kind: Kind, members: Sequence[Member]) -> HeatMap:
    """The loss on every task after every task."""
    found = [interval(kind.matrix(m)[:, 1:]) for m in members]
    values = np.concatenate([f.mean.ravel() for f in found])
    ends = np.array([np.nanmin(values), np.nanmax(values)])
    step = 10.0 ** (np.floor(np.log10(max(float(np.ptp(ends)), 1e-6))) - 1)  # of the colours' round ends
    least, most = float(np.floor(ends[0] / step) * step), float(np.ceil(ends[1] / step) * step)
    return HeatMap(
        kind.names[1],
        f"{_title(kind)}, {kind.task} after {kind.task}",
        f"Row: after how many {kind.task}s. Column: the {kind.task} tested. Less is better and brighter. Below the "
        f"diagonal are {kind.task}s learned before, above it {kind.task}s not yet learned. Mean over seeds. Outlined: "
        f"the {kind.task} just learned.",
        tuple(m.label for m in members),
        tuple(m.style for m in members),
        tuple(f.mean for f in found),
        tuple(f.half for f in found),
        rows=f"{kind.task}s learned",
        columns=f"{kind.task} tested",
        value=kind.unit,
        first_row=1,
        low=max(most, least + step),
        high=least,
        marked=True,
        small=kind.small,
    )


def lost(kind: Kind, members: Sequence[Member]) -> Figure | None:
    """Loss gained on each task but the last."""
    k = members[0].n_tasks
    if k < 2:
        return None
    x = np.arange(k - 1, dtype=np.float64)
    points = [m.beside(x, m.values[kind.gained][:, :-1], i, len(members)) for i, m in enumerate(members)]
    return Figure(
        kind.names[2],
        kind.lost,
        f"{_title(kind)} at the end of the run minus that right after the {kind.task} was learned. Lower is better, 0 "
        "is nothing lost.",
        kind.task,
        f"{kind.unit}, change",
        (Panel("", tuple(points)),),
        x_names=tuple(str(j + 1) for j in range(k - 1)),
        wide=False,
    )
