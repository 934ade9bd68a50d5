"""The diagram of critical differences: average ranks of strategies, and which of them do not differ."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from cl.report.figure import Ranks
from cl.report.lead import Lead
from cl.report.member import Member
from cl.report.svg import swatch
from cl.statistics.paired import Key
from cl.statistics.ranks import ranking


def of_members(members: Sequence[tuple[Member, Lead]], over: str = "") -> Ranks | None:
    """Return the diagram over the streams and seeds that all members share, None for too few.

    Groups with unfinished runs are left out: their mean is of fewer tasks.

    Args:
        members: each with what its stream is ranked by.
        over: end of the title.
    """
    values: dict[str, dict[Key, float]] = {}
    styles = {m.label: m.style for m, _ in members}
    for m, by in ((m, by) for m, by in members if m.group.finished):
        own = {(m.group.stream, seed): float(v) for seed, v in zip(m.group.seeds, by.worth(m), strict=True)}
        values.setdefault(m.label, {}).update(own)
    found = ranking(values)
    if found is None:
        return None
    measured = " or ".join(dict.fromkeys(by.words for _, by in members))
    unlike = "" if np.isnan(found.p) else f" Friedman's test that all are alike: p = {found.p:.2g}."
    return Ranks(
        "average_ranks",
        f"Average ranks{over}",
        f"Each strategy's rank by {measured}, 1 is best, mean over the streams and seeds that all were run on "
        f"(N = {found.count}). A bar joins strategies that differ by less than the critical difference, "
        f"{found.critical:.2f} (Nemenyi's test, level .05; Demsar 2006): they cannot be told apart with so many runs."
        f"{unlike} Seeds of one stream speak of that stream alone.",
        found.names,
        tuple(styles[name] for name in found.names),
        found.ranks,
        found.critical,
        tuple((float(found.ranks[a]), float(found.ranks[b])) for a, b in found.groups),
    )


def draw(item: Ranks) -> str:
    """Return the diagram as HTML: a row a strategy, then a bar for each group that does not differ."""
    k = len(item.labels)

    def place(rank: float) -> str:
        return f"{(rank - 1) / (k - 1) * 100:.2f}%"

    every = -(-k // 12)
    ticks = "".join(f'<i style="left:{place(r)}">{r}</i>' for r in range(1, k + 1, every))
    rows = f'<div class="rank axis"><span>rank</span><span class="track">{ticks}</span><span></span></div>'
    for label, style, rank in zip(item.labels, item.styles, item.ranks.tolist(), strict=True):
        rows += (
            f'<div class="rank" data-s="{style}"><span>{swatch(style)} {escape(label)}</span>'
            f'<span class="track"><b class="spot s{style % 24}" style="left:{place(rank)}"></b></span>'
            f"<span>{rank:.2f}</span></div>"
        )
    for i, (low, high) in enumerate(item.groups):
        width = f"{(high - low) / (k - 1) * 100:.2f}%"
        rows += (
            f'<div class="rank tie"><span>{"not told apart" if i == 0 else ""}</span><span class="track">'
            f'<b style="left:{place(low)};width:{width}"></b></span><span></span></div>'
        )
    spoken = "; ".join(f"{n}: {r:.2f}" for n, r in zip(item.labels, item.ranks.tolist(), strict=True))
    label = escape(f"{item.title}. {spoken}. Critical difference {item.critical:.2f}", quote=True)
    return f'<div class="ranks" role="img" tabindex="0" aria-label="{label}">{rows}</div>'


def picture(item: Ranks) -> Any:
    """Return the diagram as a matplotlib figure, drawn as Demsar draws it: best on the right, labels at both sides."""
    from matplotlib.figure import Figure as Drawing

    k = len(item.labels)
    deep = -(-k // 2)
    low = -0.5 - 0.32 * len(item.groups)
    bottom = low - 0.55 * deep
    drawing = Drawing(figsize=(6.4, 0.55 + 0.3 * (1.3 - bottom)))
    at = drawing.add_axes((0.27, 0.02, 0.46, 0.96))
    at.set_axis_off()
    at.set_xlim(k, 1)
    at.set_ylim(bottom - 0.3, 1.5)
    line: dict[str, Any] = {"color": "k", "clip_on": False}
    at.plot([1, k], [0, 0], linewidth=1, **line)
    for rank in range(1, k + 1):
        at.plot([rank, rank], [0, 0.14], linewidth=1, **line)
        at.text(rank, 0.2, str(rank), ha="center", va="bottom", fontsize=8)
    wide = min(item.critical, k - 1.0)
    at.plot([k, k - wide], [1.0, 1.0], linewidth=1.6, **line)
    beyond = " (wider than the axis)" if item.critical > k - 1 else ""
    at.text(k - wide / 2, 1.08, f"critical difference {item.critical:.2f}{beyond}", ha="center", fontsize=8)
    for i, (first, last) in enumerate(item.groups):
        y = -0.32 * (i + 1)
        at.plot([first - 0.04, last + 0.04], [y, y], linewidth=3, solid_capstyle="butt", **line)
    for i, (label, rank) in enumerate(zip(item.labels, item.ranks.tolist(), strict=True)):
        best = i < k // 2  # the better half stands on the right
        y = low - 0.55 * (i if best else k - 1 - i)
        edge = 1 - 0.06 * (k - 1) if best else k + 0.06 * (k - 1)
        at.plot([rank, rank, edge], [0, y, y], linewidth=0.8, **line)
        side = "left" if best else "right"
        at.text(edge, y, f" {label} ({rank:.2f}) ", ha=side, va="center", fontsize=8, clip_on=False)
    return drawing


def rows(item: Ranks) -> list[list[object]]:
    """Return the csv: average ranks, the critical difference, and in which groups a strategy is."""
    groups = [f"group {i + 1}" for i in range(len(item.groups))]
    head: list[object] = ["strategy", "average rank", "critical difference", *groups]
    return [head] + [
        [label, float(f"{r:.8g}"), float(f"{item.critical:.8g}"), *(int(a <= r <= b) for a, b in item.groups)]
        for label, r in zip(item.labels, item.ranks.tolist(), strict=True)
    ]
