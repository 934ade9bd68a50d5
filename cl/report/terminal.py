"""A run in the terminal: where it is, its accuracy curves drawn in braille dots, its accuracy matrix (rich)."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cl.live import Live

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Array = NDArray[np.float64]
COLOURS = ("blue", "red", "green", "magenta", "yellow", "cyan", "white", "bright_black")
# Dots of a braille character by row and column (Unicode 2800 and following).
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
HEIGHT = 13
LARGEST = 20  # tasks; a larger matrix does not fit a terminal


def canvas(lines: Sequence[tuple[Array, Array]], width: int, height: int, x_range: tuple[float, float]) -> "Text":
    """Draw lines with values in [0, 1] as braille dots.

    Args:
        lines: x and y of each line; NaN is left out. The line number sets the colour.
        width: characters.
        height: rows of characters.
        x_range: x of the left and right edge.
    """
    from rich.text import Text

    cells = np.zeros((height, width), np.int64)
    colour = np.full((height, width), -1)
    low, high = x_range
    for number, (x, y) in reversed(list(enumerate(lines))):  # the first task, which has most to lose, on top
        good = np.isfinite(x) & np.isfinite(y)
        if not good.any():
            continue
        places = (x[good] - low) / max(high - low, 1e-9) * (2 * width - 1)
        columns = np.arange(int(np.ceil(places[0])), int(places[-1]) + 1)
        columns = columns if len(columns) else np.array([round(places[0])])
        rows = (1 - np.clip(np.interp(columns, places, y[good]), 0, 1)) * (4 * height - 1)
        before = None
        for column, row in zip(columns.tolist(), rows.round().astype(int).tolist(), strict=True):
            step = 1 if before is None or row >= before else -1
            for dot in range(row if before in (None, row) else before + step, row + step, step):
                cells[dot // 4, column // 2] |= DOTS[dot % 4][column % 2]
                colour[dot // 4, column // 2] = number
            before = row
    text = Text()
    for row in range(height):
        text.append(f"{1 - row / (height - 1):4.2f} " if row % 3 == 0 else "     ", "dim")
        for column in range(width):
            style = COLOURS[colour[row, column] % len(COLOURS)] if colour[row, column] >= 0 else ""
            text.append(chr(0x2800 + int(cells[row, column])), style)
        text.append("\n")
    return text


def show(live: Live, width: int, now: float | None = None) -> "RenderableType":
    """Return the present state of a run for a console of `width` characters."""
    from rich.console import Group as Stack
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    if not live.tasks:
        return Text("waiting for the run to begin ...")
    parts: list[RenderableType] = [_head(live, time.time() if now is None else now)]
    parts.append(ProgressBar(total=1.0, completed=live.done, width=min(width, 80)))
    parts.append(Text("\naccuracy on each task over the steps of the run", "bold"))
    parts.append(canvas(*_lines(live, max(20, min(width, 110) - 6))))
    key = Text("     ")
    for j in range(min(live.tasks, LARGEST)):
        key.append(f"━ task {j + 1}  ", COLOURS[j % len(COLOURS)])
    parts.append(key)
    if live.tasks <= LARGEST:
        parts.append(_matrix(live))
    return Stack(*parts)


def _head(live: Live, now: float) -> "Text":
    from rich.text import Text

    text = Text(f"{live.name}: ", "bold")
    if live.status != "running":
        return text.append(f"{live.status} after {_clock(live.seconds)}", "")
    text.append(f"task {live.task + 1}/{live.tasks}, step {live.step}/{live.steps}, loss {live.loss:.4f}", "")
    spent = live.seconds + max(now - live.last, 0.0)
    if live.done > 0:
        text.append(f", {_clock(spent)} gone, about {_clock(spent / live.done - spent)} left", "dim")
    if now - live.last > 60:
        text.append(f"; silent for {_clock(now - live.last)}", "yellow")
    return text


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _lines(live: Live, width: int) -> tuple[list[tuple[Array, Array]], int, int, tuple[float, float]]:
    """Return what `canvas` takes: for each task its points of the matrix and of the curve, in order of steps."""
    values = {step: accuracy for step, accuracy, _ in live.rows.values()}
    values = {**{step: accuracy for step, (_, accuracy) in live.points.items()}, **values}
    steps = sorted(values)
    x = np.array(steps, np.float64)
    ends = [live.rows[row][0] for row in sorted(live.rows)]
    lengths = np.diff(ends)
    total = live.steps * live.tasks if not len(lengths) else float(lengths.mean()) * live.tasks
    right = max([float(total), *map(float, steps)])
    lines = [(x, np.array([values[s][j] for s in steps])) for j in range(live.tasks)]
    return lines, width, HEIGHT, (0.0, max(right, 1.0))


def _matrix(live: Live) -> "RenderableType":
    from rich import box
    from rich.table import Table

    table = Table(title="accuracy matrix", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("after", justify="right", style="dim")
    for j in range(live.tasks):
        table.add_column(str(j + 1), justify="right")
    for row in sorted(live.rows):
        accuracy = live.rows[row][1]
        cells = [_cell(a, j == row - 1) for j, a in enumerate(accuracy)]
        table.add_row(str(row), *cells)
    return table


def _cell(accuracy: float, now: bool) -> "Text":
    from rich.text import Text

    if not np.isfinite(accuracy):
        return Text("-", "dim")
    return Text(
        f"{accuracy:.2f}",
        f"{'red' if accuracy < 1 / 3 else 'yellow' if accuracy < 2 / 3 else 'green'}{' bold' if now else ''}",
    )
