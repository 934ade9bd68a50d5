"""Figures ready for a paper: PNG, SVG and the data as csv (matplotlib)."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl.files import atomic_path
from cl.report import ranks
from cl.report.content import Block, overall
from cl.report.figure import Figure, HeatMap, Panel, Ranks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008; yellow last, for it is faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B3A700")
DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FORMATS = ("png", "svg")
SMALL_MATRIX = 8  # tasks; larger matrices are drawn without numbers


def write(blocks: Sequence[Block], folder: Path) -> list[Path]:
    """Write every figure of every stream into `folder`; with several streams, one folder each within it."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    look: dict[Any, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "lethe",
        "svg.fonttype": "none",  # text stays text, which an editor of figures can change
    }
    with matplotlib.rc_context(look):
        together = overall(blocks)
        if together is not None:
            written += _save(ranks.picture(together), together.name, folder, ranks.rows(together))
        for block in blocks:
            place = folder if len(blocks) == 1 else folder / _stem(block.stream)
            place.mkdir(parents=True, exist_ok=True)
            for item in block.items:
                if isinstance(item, Figure):
                    written += _save(_draw(item), item.name, place, _rows(item))
                elif isinstance(item, HeatMap):
                    written += _save(draw_heat(item), item.name, place, _heat_rows(item))
                elif isinstance(item, Ranks):
                    written += _save(ranks.picture(item), item.name, place, ranks.rows(item))
                else:
                    written.append(_csv(item.name, place, [list(item.heads), *map(list, item.rows)]))
    return written


def _stem(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text.lower()).strip("_").replace("__", "_")


def _save(drawing: Any, name: str, folder: Path, rows: list[list[object]]) -> list[Path]:
    made = []
    for kind in FORMATS:
        with atomic_path(folder / f"{name}.{kind}") as path:
            metadata = {"Date": None} if kind == "svg" else {}
            drawing.savefig(path, format=kind, dpi=150, metadata=metadata)
        made.append(folder / f"{name}.{kind}")
    return [*made, _csv(name, folder, rows)]


def _csv(name: str, folder: Path, rows: list[list[object]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_path(folder / f"{name}.csv") as path:
        path.write_text(text.getvalue(), encoding="utf-8")
    return folder / f"{name}.csv"


def _axes(
    count: int, size: tuple[float, float], top: float, bottom: float, right: float = 0.15, left: float = 0.65
) -> Any:
    """Return a drawing and a grid of `count` axes of `size` inches, with room in inches around them.

    Margins are computed rather than found by a layout engine, which would take longer than all the drawing.
    """
    from matplotlib.figure import Figure as Drawing

    across = min(count, 4)
    down = -(-count // across)
    gap, between = 0.62 if count > 1 else 0.0, 0.72
    width = left + across * size[0] + (across - 1) * gap + right
    height = top + down * size[1] + (down - 1) * between + bottom
    drawing = Drawing(figsize=(width, height))
    grid = []
    for i in range(count):
        row, column = divmod(i, across)
        x, y = left + column * (size[0] + gap), height - top - row * (size[1] + between) - size[1]
        grid.append(drawing.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return drawing, grid


def _draw(figure: Figure) -> Any:
    count = len(figure.panels)
    labels = list(dict.fromkeys(s.label for p in figure.panels for s in p.series))
    longest = max((len(n) for n in figure.x_names), default=0)
    size = (5.4, 3.2) if count == 1 else (1.9, 1.45)
    room = 0.6 + 0.065 * max((len(n) for n in labels), default=0)  # inches that a name and its line take
    in_a_row = max(1, int(min(count, 4) * (size[0] + 0.5) / room))
    lines = 0 if figure.named else -(-len(labels) // in_a_row)
    top = 0.2 + 0.19 * lines + (0.2 if count > 1 else 0.0)
    bottom, left = 0.5, 0.65
    if longest > 4:  # names that are slanted end at their tick: 0.054 inches a letter to the left of it
        bottom += 0.05 * longest
        apart = size[0] / len(figure.x_names)
        left = max(left, *(0.1 + 0.054 * len(n) - apart * (i + 0.5) for i, n in enumerate(figure.x_names)))
    drawing, grid = _axes(count, size, top, bottom, left=left)
    for i, (at, panel) in enumerate(zip(grid, figure.panels, strict=True)):
        _panel(at, figure, panel)
        if i % 4 == 0:
            at.set_ylabel(figure.y_label)
        if i >= count - 4:
            at.set_xlabel(figure.x_label)
    if lines:
        found = dict(zip(*reversed(grid[0].get_legend_handles_labels()), strict=True))
        drawing.legend(found.values(), found.keys(), loc="upper left", ncols=in_a_row, frameon=False, fontsize=8)
    return drawing


def _panel(at: "Axes", figure: Figure, panel: Panel) -> None:
    for x in panel.boundaries:
        at.axvline(x, color="0.8", linewidth=0.6, linestyle=":")
    if panel.shade is not None:
        at.axvspan(*panel.shade, color="0.93", linewidth=0)
    for s in panel.series:
        colour, dash = COLOURS[s.style % 8], DASHES[s.style // 8 % 3]
        marker = MARKERS[(s.style + s.style // 8) % 8]
        if s.joined:
            at.plot(
                s.x,
                s.y,
                color=colour,
                linestyle=dash,
                linewidth=1.3,
                label=s.label,
                marker=marker if len(s.x) <= 30 else "",
                markersize=3,
            )
            at.fill_between(s.x, s.low, s.high, color=colour, alpha=0.16, linewidth=0)
        else:
            error = np.nan_to_num(np.stack([s.y - s.low, s.high - s.y]))
            at.errorbar(s.x, s.y, error, color=colour, fmt=marker, markersize=4, linewidth=1, label=s.label)
        if figure.named:
            right = s.x[0] > np.mean(figure.x_limits())  # the label would leave the picture there
            offset, side = ((-5, 4), "right") if right else ((5, 4), "left")
            at.annotate(s.label, (s.x[0], s.y[0]), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
    at.set_xlim(*figure.x_limits())
    at.set_ylim(*figure.y_limits())
    if panel.title:
        at.set_title(panel.title, fontsize=9)
    if figure.counts:
        from matplotlib.ticker import MaxNLocator

        at.xaxis.set_major_locator(MaxNLocator(integer=True))
    if figure.x_names:
        slanted = max(map(len, figure.x_names)) > 4
        at.set_xticks(range(len(figure.x_names)), figure.x_names, rotation=30 if slanted else 0)
        if slanted:
            for label in at.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")


def draw_heat(heat: HeatMap) -> Any:
    """Return matrices side by side as a matplotlib figure."""
    count, (rows, columns) = len(heat.means), heat.means[0].shape
    drawing, grid = _axes(count, (1.9, 1.9), 0.35, 0.5, right=1.0)
    image = None
    for i, at in enumerate(grid):
        low, high = sorted((heat.low, heat.high))
        colours = "cividis" if heat.low < heat.high else "cividis_r"
        image = at.imshow(heat.means[i], vmin=low, vmax=high, cmap=colours, aspect="auto")
        at.set_title(heat.labels[i], fontsize=9)
        if i >= count - 4:
            at.set_xlabel(heat.columns)
        if i % 4 == 0:
            at.set_ylabel(heat.rows)
        if columns <= SMALL_MATRIX:
            at.set_xticks(range(columns), range(1, columns + 1))
            at.set_yticks(range(rows), range(heat.first_row, heat.first_row + rows))
            middle = heat.low + 0.55 * (heat.high - heat.low)
            for row, column in np.ndindex(rows, columns):
                value = heat.means[i][row, column]
                if np.isfinite(value):
                    colour = "k" if (value > middle) == (heat.low < heat.high) else "w"
                    at.text(column, row, heat.told(value), ha="center", va="center", fontsize=5.5, color=colour)
    if image is not None:
        width, height = drawing.get_size_inches()
        box = drawing.add_axes(((width - 0.75) / width, (height - 2.25) / height, 0.12 / width, 1.9 / height))
        drawing.colorbar(image, cax=box, label=heat.value)
    return drawing


def _rows(figure: Figure) -> list[list[object]]:
    head: list[object] = ["panel", "strategy", figure.x_label, figure.y_label, "low", "high"]
    return [head] + [
        [p.title, s.label, *(float(f"{v:.8g}") for v in values)]
        for p in figure.panels
        for s in p.series
        for values in zip(s.x, s.y, s.low, s.high, strict=True)
    ]


def _heat_rows(heat: HeatMap) -> list[list[object]]:
    head: list[object] = ["strategy", heat.rows, heat.columns, heat.value, "half of the 95 % interval"]
    return [head] + [
        [label, i + heat.first_row, j + 1, float(f"{mean[i, j]:.8g}"), float(f"{half[i, j]:.8g}")]
        for label, mean, half in zip(heat.labels, heat.means, heat.spreads, strict=True)
        for i, j in np.ndindex(mean.shape)
    ]
