"""From groups of runs to what the page says of one stream, item by item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.groups import Group, measures
from cl.metrics.base import last_row
from cl.report import curves, distance, forgotten, losses, network, price, ranks
from cl.report.figure import Figure, HeatMap, Ranks, Table
from cl.report.lead import Lead, lead
from cl.report.member import Member
from cl.statistics.intervals import interval

Array = NDArray[np.float64]
Item = Figure | HeatMap | Table | Ranks
STRATEGIES = 24  # strategies drawn; the table of measures has all


@dataclass(frozen=True)
class Block:
    """What the page says of one stream.

    Attributes:
        stream: its name.
        lead: what its strategies are ranked by.
        members: strategies, the best first.
        items: figures, matrices and tables, in the order of the page.
    """

    stream: str
    lead: Lead
    members: tuple[Member, ...]
    items: tuple[Item, ...]


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
    by = lead(members)
    members.sort(key=lambda m: (not m.group.finished, -float(np.nan_to_num(interval(by.worth(m)).mean, nan=-np.inf))))
    shown = members[:STRATEGIES]
    items: list[Item | None] = [
        *losses.items(shown),
        curves.average(shown),
        curves.of_tasks(shown),
        curves.matrices(shown),
        curves.switches(shown),
        curves.drops(shown),
        curves.differences(shown, by),
        ranks.of_members([(m, by) for m in shown]),
        *curves.retention(shown),
        forgotten.histogram(shown),
        *network.items(shown),
        *distance.items(shown),
        *price.items(shown, by),
    ]
    return Block(stream, by, tuple(members), tuple(item for item in items if item is not None))


def overall(blocks: Sequence[Block]) -> Ranks | None:
    """Return the ranks over all streams together; None for one stream, or where too few strategies share them."""
    if len(blocks) < 2:
        return None
    everywhere = set.intersection(*({m.group.label for m in b.members} for b in blocks))
    found = [(m, b.lead) for b in blocks for m in b.members if m.group.label in everywhere]
    return ranks.of_members(found, " over all streams")


def headline(block: Block) -> str:
    """Return the result in a sentence or two; groups with unfinished runs do not count beside finished ones."""
    finished = [m for m in block.members if m.group.finished]
    members = finished or block.members
    best, worst = members[0], members[-1]
    kept = [float(last_row(m.group.accuracy)[:, 0].mean()) for m in (best, worst)]

    def told(m: Member) -> str:
        found = m.metric("average_accuracy")
        sure = f" ± {float(found.half):.3f}" if np.isfinite(found.half) else ""
        return f"{m.label} reaches {float(found.mean):.3f}{sure}"

    several = "s" if best.n_tasks > 1 else ""
    when = f"After {best.n_tasks} {{}}{several}" if finished else "So far"
    if said := losses.headline(members, when):
        return said
    if not np.isfinite(best.metric("average_accuracy").mean):
        return "No task is learned yet."
    text = f"{when.format('task')} {told(best)} average accuracy and still has {kept[0]:.3f} on the first task"
    if worst is not best:
        text += f"; {told(worst)} and has {kept[1]:.3f} left"
    return text + "."
