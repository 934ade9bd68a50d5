"""The page itself: HTML around the charts and tables, style and script included."""

from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np

from cl.metrics.base import discover, per_replica
from cl.report import asked, failures
from cl.report.content import Block, Member, headline
from cl.report.figure import Figure, HeatMap
from cl.report.markup import scroll
from cl.report.svg import draw, swatch
from cl.runs import Group, Run
from cl.statistics.intervals import interval

LARGEST_MATRIX = 20  # tasks; larger matrices are pictures only


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
    nothing = "" if blocks else '<p class="note">No run has results yet.</p>'
    body = (
        f'<a class="skip" href="#main">Skip to the results</a><header><h1>{escape(title)}</h1>'
        f'<p class="made">{escape(made)}</p>{_controls(blocks)}</header><main id="main">'
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
    tasks = max((p.task for b in blocks for f in b.figures for p in f.panels if p.task is not None), default=-1) + 1
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
    for figure in block.figures[:2]:
        parts.append(_figure(figure, f"f{number}-{figure.name}"))
    parts.append(_matrices(block.heat, block.members, number))
    for figure in block.figures[2:]:
        parts.append(_figure(figure, f"f{number}-{figure.name}"))
    parts.append(_measures(block.members))
    parts.append("</section>")
    return "".join(parts)


def _figure(figure: Figure, ident: str) -> str:
    note = " Log scale shows the error, 1 - accuracy." if figure.log == "error" else ""
    return (
        f'<figure class="chart" id="{escape(ident)}"><h3>{escape(figure.title)}</h3>{draw(figure, ident + "-p")}'
        f"<figcaption>{escape(figure.reading + note)} Files: <code>figures/{escape(figure.name)}</code> .png .svg .csv"
        "</figcaption></figure>"
    )


def _matrices(heat: HeatMap, members: Sequence[Member], number: int) -> str:
    """Return the matrices as tables whose cells are coloured, which every reader and printer can show."""
    k = heat.means[0].shape[1]
    if k > LARGEST_MATRIX:
        return f'<p class="note">Accuracy matrices of {k} tasks: see <code>figures/{heat.name}.png</code>.</p>'
    tables = []
    for label, mean, spread, m in zip(heat.labels, heat.means, heat.spreads, members, strict=False):
        head = "".join(f'<th scope="col">{j + 1}</th>' for j in range(k))
        rows = "".join(
            f'<tr><th scope="row">{i}</th>'
            + "".join(_cell(mean[i, j], spread[i, j], i == j + 1) for j in range(k))
            + "</tr>"
            for i in range(k + 1)
        )
        tables.append(
            f'<div class="matrix" data-s="{m.style}"><table><caption>{swatch(m.style)} {escape(label)}</caption>'
            f'<thead><tr><th scope="col"><span class="sr">after task</span></th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    return (
        f'<figure class="chart" id="f{number}-{heat.name}"><h3>{escape(heat.title)}</h3><div class="matrices">'
        f"{''.join(tables)}</div><figcaption>{escape(heat.reading)} Outlined: the task just trained. Files: "
        f"<code>figures/{heat.name}</code> .png .svg .csv</figcaption></figure>"
    )


def _cell(mean: float, half: float, diagonal: bool) -> str:
    if not np.isfinite(mean):
        return "<td></td>"
    sure = f' title="{mean:.3f} ± {half:.3f}"' if np.isfinite(half) else ""
    level = int(np.clip(round(mean * 20), 0, 20))
    text = "1" if mean >= 0.995 else f"{mean:.2f}".lstrip("0")
    return f'<td class="h{level}{" now" if diagonal else ""}"{sure}>{text}</td>'


def _measures(members: Sequence[Member]) -> str:
    """Return the table of all metrics: a row each, with what it means and which direction is good."""
    metrics = {n: m for n, m in discover().items() if any(n in member.values for member in members)}
    rows = []
    for name, metric in metrics.items():
        found = [interval(per_replica(m.values[name])) if name in m.values else None for m in members]
        means = [float(f.mean) if f is not None else np.nan for f in found]
        if not np.isfinite(means).any():
            continue
        best = np.nanmax(means) if metric.better == "higher" else np.nanmin(means)
        cells = ""
        for member, f, mean in zip(members, found, means, strict=True):
            text = "-" if f is None or not np.isfinite(mean) else _value(mean, metric.unit)
            if f is not None and np.isfinite(f.half):
                text += f"<small> ± {_value(float(f.half), metric.unit)}</small>"
            cells += f'<td data-s="{member.style}"{" class=best" if mean == best else ""}>{text}</td>'
        arrow = "higher is better ↑" if metric.better == "higher" else "lower is better ↓"
        unit = "" if metric.unit == "fraction" else f" [{metric.unit}]"
        rows.append(
            f'<tr><th scope="row"><b>{escape(metric.title)}{escape(unit)}</b> <span class="dir">{arrow}</span>'
            f'<span class="meaning">{escape(metric.meaning)} <cite>{escape(metric.source)}</cite></span></th>'
            f"{cells}</tr>"
        )
    head = "".join(
        f'<th scope="col" data-s="{m.style}">{swatch(m.style)} {escape(m.label)} '
        f"<small>n={len(m.group.runs)}</small></th>"
        for m in members
    )
    top = f'<thead><tr><th scope="col">measure</th>{head}</tr></thead>'
    table = f'<table class="measures">{top}<tbody>{"".join(rows)}</tbody></table>'
    return (
        f'<div class="chart"><h3>All measures</h3>{scroll(table, "Table of measures")}<p class="caption">Mean over '
        "seeds ± half of the 95 % t interval. The best mean of a row is set in bold; whether it is more than "
        "chance stands under paired differences. File: <code>figures/measures.csv</code></p></div>"
    )


def _value(value: float, unit: str) -> str:
    return f"{value:.3f}" if unit == "fraction" else f"{value:.4g}"
