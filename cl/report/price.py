"""What a strategy costs: account of every run, and accuracy against the costs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cl.groups import Group
from cl.report.figure import Figure, Panel, Series, Table
from cl.report.lead import Lead
from cl.report.member import Member
from cl.statistics.intervals import interval

Array = NDArray[np.float64]


def cost(group: Group, name: str) -> Array:
    """Return a cost of every run (S,); ``bytes_stored`` sums the bytes of all kinds, ``passes`` both directions."""
    if name == "passes":
        return np.asarray(group.cost("passes_forward") + group.cost("passes_backward"))
    if name != "bytes_stored":
        return group.cost(name)
    kinds = {c for r in group.results() for c in r.costs if c.startswith("bytes_")}
    columns = [np.nan_to_num(group.cost(c)) for c in kinds]
    return np.asarray(np.sum(columns or [np.zeros(len(group.results()))], axis=0))


def items(members: Sequence[Member], by: Lead) -> list[Figure | Table | None]:
    """Return the Pareto figures, against what the page ranks `by`, and the cost account."""
    return [
        pareto(members, by, "seconds_train", "training time", "seconds of training"),
        pareto(members, by, "passes", "computation", "passes of samples, forward and backward"),
        pareto(members, by, "bytes_stored", "memory", "bytes stored beyond the network"),
        account(members),
    ]


def pareto(members: Sequence[Member], by: Lead, name: str, against: str, x_label: str) -> Figure | None:
    """What the page ranks `by` against a cost; strategies that nothing beats in both are named in the caption."""
    points = []
    for m in members:
        spent, reached = interval(cost(m.group, name)), interval(by.values(m))
        if np.isfinite(spent.mean) and np.isfinite(reached.mean):
            points.append((float(spent.mean), reached, m))
    if len(points) < 2 or len({p[0] for p in points}) < 2:
        return None
    sign = -1 if by.less else 1

    def beaten(x: float, y: float) -> bool:
        worth = [(a, sign * (float(b.mean) - y)) for a, b, _ in points]
        return any(a <= x and more >= 0 and (a < x or more > 0) for a, more in worth)

    front = [m.label for x, y, m in points if not beaten(x, float(y.mean))]
    series = []
    for x, y, m in points:
        low, high = np.clip(y.low, 0, by.most)[None], np.clip(y.high, 0, by.most)[None]
        series.append(Series(m.label, m.style, np.array([x]), y.mean[None], low, high, joined=False))
    return Figure(
        f"pareto_{name}",
        f"{by.capital} against {against}",
        f"{'Down' if by.less else 'Up'} and to the left is better. Not beaten in both by any other: "
        f"{', '.join(front)}.",
        x_label,
        by.words,
        (Panel("", tuple(series)),),
        log="x",
        named=True,
        wide=False,
    )


def account(members: Sequence[Member]) -> Table | None:
    """Mean of every cost that the runs recorded."""
    results = [r for m in members for r in m.group.results()]
    names = list(dict.fromkeys(n for r in results for n, c in r.costs.items() if isinstance(c, int | float)))
    if not names:
        return None
    found = [[float(interval(m.group.cost(n)).mean) for m in members] for n in names]
    rows = [
        (n.replace("_", " "), *(None if np.isnan(v) else float(f"{v:.4g}" if v < 1000 else round(v)) for v in values))
        for n, values in zip(names, found, strict=True)
    ]
    return Table(
        "costs",
        "Costs of a run",
        "Mean over seeds. Seconds by phase. Passes: samples through the networks of the strategy (learner, teacher, "
        "generator) in training and consolidation, not in evaluation. Parameters trained: in the task with most of "
        "them. Bytes that a strategy keeps beyond the network, by kind. Peak: the largest memory of the process and, "
        "on a GPU, of its tensors; with several replicas together, of all of them.",
        ("cost", *(m.label for m in members)),
        tuple(rows),
    )
