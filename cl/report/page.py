"""The page itself: HTML around the charts and tables, style and script included."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from cl.groups import Group, final
from cl.metrics.base import discover, per_replica
from cl.report import asked, failures, forgotten, picture, ranks, samples
from cl.report.content import Block, headline, overall
from cl.report.figure import Figure, HeatMap, Ranks, Table
from cl.report.markup import scroll, table
from cl.report.member import Member
from cl.report.svg import draw, swatch
from cl.runs import Run
from cl.statistics.intervals import interval

Array = NDArray[np.float64]
LARGEST_MATRIX = 20  # tasks; larger matrices are pictures without numbers


def render(blocks: Sequence[Block], groups: Sequence[Group], runs: Sequence[Run], made: str, title: str) -> str:
    """Return the page.

    Args:
        blocks: one a stream.
        groups: all groups, also those without results.
        runs: all runs.
        made: when and from what the page was made.
        title: heading.
    """
    here = resources.files("cl.report")
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    sections = "".join(_block(b, i) for i, b in enumerate(blocks))
    together = overall(blocks)
    if together is not None:
        sections = f'<section class="stream"><h2>All streams</h2>{_ranks(together, "all-ranks")}</section>{sections}'
    nothing = "" if blocks else '<p class="note">No run has results yet.</p>'
    body = (
        f'<a class="skip" href="#main">Skip to the results</a><header><h1>{escape(title)}</h1>'
        f'<p class="made">{escape(made)}</p></header><main id="main">{_controls(blocks)}'
        f"{nothing}{sections}{failures.section(groups, runs)}{asked.section(groups)}{asked.environments(runs)}</main>"
        '<div id="tip" role="status" aria-live="polite" hidden></div>'
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{body}<script>{script}</script></body></html>\n"
    )


def _controls(blocks: Sequence[Block]) -> str:
    """Return the legend, which is also where strategies and tasks are switched on and off."""
    members: dict[str, int] = {m.label: m.style for b in blocks for m in b.members}
    if not members:
        return ""
    strategies = "".join(
        f'<label class="chip"><input type="checkbox" data-strategy="{style}" checked>{swatch(style)}'
        f"<span>{escape(label)}</span></label>"
        for label, style in members.items()
    )
    tasks = (
        max(
            (p.task for b in blocks for f in b.items if isinstance(f, Figure) for p in f.panels if p.task is not None),
            default=-1,
        )
        + 1
    )
    switches = "".join(
        f'<label class="chip"><input type="checkbox" data-task-switch="{j}" checked><span>{j + 1}</span></label>'
        for j in range(tasks)
    )
    return (
        '<div class="controls"><fieldset><legend>Strategies</legend>'
        f'<div class="chips">{strategies}</div></fieldset>'
        f'<fieldset class="live"><legend>Tasks</legend><div class="chips">{switches}</div></fieldset>'
        '<div class="live buttons"><button type="button" id="log" aria-pressed="false">Log scale</button>'
        '<button type="button" id="theme">Dark / light</button></div></div>'
    )


def _block(block: Block, number: int) -> str:
    parts = [
        f'<section class="stream"><h2>{escape(block.stream)}</h2><p class="headline">{escape(headline(block))}</p>'
    ]
    for item in block.items:
        ident = f"f{number}-{item.name}"
        if isinstance(item, Figure):
            parts.append(_figure(item, ident))
        elif isinstance(item, HeatMap):
            parts.append(_matrices(item, ident))
        elif isinstance(item, Ranks):
            parts.append(_ranks(item, ident))
        else:
            parts.append(_table(item, ident))
    parts.append(forgotten.section(block.members))
    parts.append(_measures(block.members))
    parts.append(samples.section([run.folder for m in block.members for run in m.group.runs]))
    parts.append("</section>")
    return "".join(parts)


def _figure(figure: Figure, ident: str) -> str:
    note = " Log scale shows the error, 1 - accuracy." if figure.log == "error" else ""
    kind = "chart" if figure.wide else "chart half"
    return (
        f'<figure class="{kind}" id="{escape(ident)}"><h3>{escape(figure.title)}</h3>{draw(figure, ident + "-p")}'
        f"<figcaption>{escape(figure.caption + note)} Files: <code>figures/{escape(figure.name)}</code> .png .svg .csv"
        "</figcaption></figure>"
    )


def _ranks(item: Ranks, ident: str) -> str:
    return (
        f'<figure class="chart half" id="{escape(ident)}"><h3>{escape(item.title)}</h3>{ranks.draw(item)}'
        f"<figcaption>{escape(item.reading)} Files: <code>figures/{item.name}</code> .png .svg .csv</figcaption>"
        "</figure>"
    )


def _table(item: Table, ident: str) -> str:
    return (
        f'<div class="chart{" half" if len(item.heads) < 6 else ""}" id="{escape(ident)}"><h3>{escape(item.title)}</h3>'
        f"{table(item.heads, item.rows, item.title)}"
        f'<p class="caption">{escape(item.reading)} File: <code>figures/{escape(item.name)}.csv</code></p></div>'
    )


def _matrices(heat: HeatMap, ident: str) -> str:
    """Return the matrices as tables of coloured cells, which everybody can read and print; large ones as pictures."""
    rows, k = heat.means[0].shape
    tables = []
    if max(rows - 1, k) > LARGEST_MATRIX:
        for label, style, mean in zip(heat.labels, heat.styles, heat.means, strict=True):
            drawn = picture.heat(mean, heat.low, heat.high, f"{heat.title}: {label}")
            tables.append(f'<div class="matrix" data-s="{style}"><p>{swatch(style)} {escape(label)}</p>{drawn}</div>')
        return _heat(heat, ident, tables)
    corner = f'<th scope="col"><span class="sr">{escape(heat.rows)}</span></th>'
    head = corner + "".join(f'<th scope="col">{j + 1}</th>' for j in range(k))
    for label, style, mean, spread in zip(heat.labels, heat.styles, heat.means, heat.spreads, strict=True):
        body = ""
        for i in range(rows):
            number = i + heat.first_row
            cells = (_cell(heat, mean[i, j], spread[i, j], heat.marked and number == j + 1) for j in range(k))
            body += f'<tr><th scope="row">{number}</th>{"".join(cells)}</tr>'
        tables.append(
            f'<div class="matrix" data-s="{style}"><table><caption>{swatch(style)} {escape(label)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    return _heat(heat, ident, tables)


def _heat(heat: HeatMap, ident: str, tables: Sequence[str]) -> str:
    return (
        f'<figure class="chart" id="{ident}"><h3>{escape(heat.title)}</h3>{_ramp(heat)}<div class="matrices">'
        f"{''.join(tables)}</div><figcaption>{escape(heat.reading)} Files: "
        f"<code>figures/{heat.name}</code> .png .svg .csv</figcaption></figure>"
    )


def _ramp(heat: HeatMap) -> str:
    """Return the key of the colours."""
    steps = "".join(f'<i class="h{i}"></i>' for i in range(0, 21, 2))
    what = f"rows: {heat.rows}; columns: {heat.columns}; colour: {heat.value}"
    return f'<p class="ramp"><span>{heat.low:g}</span>{steps}<span>{heat.high:g}</span><span>{escape(what)}</span></p>'


def _cell(heat: HeatMap, mean: float, half: float, outlined: bool) -> str:
    if not np.isfinite(mean):
        return "<td></td>"
    sure = f' title="{mean:.3g} ± {half:.2g}"' if np.isfinite(half) else ""
    level = picture.level(mean, heat.low, heat.high)
    return f'<td class="h{level}{" now" if outlined else ""}"{sure}>{heat.told(mean)}</td>'


@dataclass(frozen=True)
class Row:
    """One line of the table of measures: what it is, and its values (S,) for each member that has it."""

    title: str
    meaning: str
    source: str
    better: str
    unit: str
    values: tuple[Array | None, ...]


def _all_rows(members: Sequence[Member]) -> list[Row]:
    """Return the metrics, then what the measures that need the network saw, reduced to one number a run."""
    rows = []
    for name, metric in discover().items():
        found = tuple(per_replica(m.values[name]) if name in m.values else None for m in members)
        rows.append(Row(metric.title, metric.meaning, metric.source, metric.better, metric.unit, found))
    facts = {name: f for m in members for name, (f, _) in m.seen.items() if f.get("summary", True)}
    for name, f in facts.items():
        found = tuple(final(*m.seen[name]) if name in m.seen else None for m in members)
        rows.append(Row(name.replace("_", " "), f["meaning"], f["source"], f["better"], f["unit"], found))
    return [row for row in rows if any(v is not None and np.isfinite(v).any() for v in row.values)]


def _measures(members: Sequence[Member]) -> str:
    """Return the table of all metrics: a row each, with what it means and which direction is good."""
    body = "".join(_row(row, members) for row in _all_rows(members))
    head = "".join(
        f'<th scope="col" data-s="{m.style}">{swatch(m.style)} {escape(m.label)} '
        f"<small>n={len(m.group.runs)}</small></th>"
        for m in members
    )
    top = f'<thead><tr><th scope="col">measure</th>{head}</tr></thead>'
    whole = scroll(f'<table class="measures">{top}<tbody>{body}</tbody></table>', "Table of measures")
    reading = (
        "Mean over seeds ± half of the 95 % t interval; of measures with a value a task, the mean over tasks. The best "
        "mean of a row is set in bold; whether it is more than chance stands under paired differences. File: "
    )
    caption = f'<p class="caption">{reading}<code>figures/measures.csv</code></p>'
    return f'<div class="chart"><h3>All measures</h3>{whole}{caption}</div>'


def _row(row: Row, members: Sequence[Member]) -> str:
    found = [None if v is None else interval(v) for v in row.values]
    means = [np.nan if f is None else float(f.mean) for f in found]
    best = {"higher": np.nanmax, "lower": np.nanmin}.get(row.better, lambda _: None)(means)
    cells = ""
    for member, f, mean in zip(members, found, means, strict=True):
        half = np.nan if f is None else float(f.half)
        bold = " class=best" if mean == best else ""
        cells += f'<td data-s="{member.style}"{bold}>{_value(mean, half, row.unit)}</td>'
    arrow = {"higher": "higher is better ↑", "lower": "lower is better ↓"}.get(row.better, "neither is better")
    unit = "" if row.unit in ("fraction", "") else f" [{row.unit}]"
    return (
        f'<tr><th scope="row"><b>{escape(row.title + unit)}</b> <span class="dir">{arrow}</span>'
        f'<span class="meaning">{escape(row.meaning)} <cite>{escape(row.source)}</cite></span></th>{cells}</tr>'
    )


def _value(mean: float, half: float, unit: str) -> str:
    """Return a mean and half an interval; three decimals for fractions, else as many as the interval lets matter.

    >>> _value(0.5, 0.01234, "fraction"), _value(12.3456, 0.0234, "nats"), _value(150.7, float("nan"), "steps")
    ('0.500<small> ± 0.012</small>', '12.346<small> ± 0.023</small>', '150.7')
    """
    if not np.isfinite(mean):
        return "-"
    if not np.isfinite(half):
        return f"{mean:.3f}" if unit == "fraction" else f"{mean:.4g}"
    digits = 3 if unit == "fraction" or half == 0 else int(np.clip(1 - np.floor(np.log10(half)), 0, 6))
    return f"{mean:.{digits}f}<small> ± {half:.{digits}f}</small>"
