"""What a chart shows, without how it is drawn: panels of series with intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One line, or one set of points, of one strategy.

    Attributes:
        label: the strategy.
        style: its place in the palette.
        x: (N,).
        y: (N,), NaN where there is no value.
        low: (N,) lower end of the interval, NaN where unknown.
        high: (N,) upper end.
        joined: True draws a line with a band, False points with error bars.
    """

    label: str
    style: int
    x: Array
    y: Array
    low: Array
    high: Array
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: what is special about it; "" for a figure of one panel.
        series: what is drawn.
        task: the task it is about (so that it can be switched off), or None.
        boundaries: x of the ends of tasks.
        shade: (x from, x to) of the training of `task`, or None.
    """

    title: str
    series: tuple[Series, ...]
    task: int | None = None
    boundaries: tuple[float, ...] = ()
    shade: tuple[float, float] | None = None


@dataclass(frozen=True)
class Figure:
    """One or more panels that share their axes.

    Attributes:
        name: stem of its files.
        title: what it shows.
        reading: how to read it, in a sentence or two.
        x_label: with unit.
        y_label: with unit.
        panels: what is drawn.
        y_range: (low, high), or None to fit the data.
        x_names: names of x = 0, 1, 2, ..., for an axis of things instead of numbers.
        log: what the logarithmic view shows: ``error`` (1 - y), ``x``, ``y``, or "" for none.
        named: True writes the label beside every point.
        wide: True takes the whole width of the page, False half of it where there is room.
    """

    name: str
    title: str
    reading: str
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    y_range: tuple[float, float] | None = None
    x_names: tuple[str, ...] = ()
    log: str = ""
    named: bool = False
    wide: bool = True

    def x_limits(self) -> tuple[float, float]:
        """Return the range of x, a little wider than the data where x counts things or points are drawn."""
        values = np.concatenate([s.x for p in self.panels for s in p.series] or [np.zeros(1)])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        if self.x_names:
            return -0.5, len(self.x_names) - 0.5
        points = any(not s.joined for p in self.panels for s in p.series)
        margin = 0.05 * (high - low or abs(high) or 1.0) if points else 0.0
        return low - margin, (high + margin) if high > low or points else low + 1.0

    @property
    def caption(self) -> str:
        """How to read it, and what its bars or bands are where there are any."""
        sure = {s.joined for p in self.panels for s in p.series if np.isfinite(s.high - s.low).any()}
        what = {(True,): "Bands", (False,): "Bars", (False, True): "Bars and bands"}.get(tuple(sorted(sure)))
        return f"{self.reading} {what} are 95 % intervals over seeds." if what else self.reading

    @property
    def counts(self) -> bool:
        """True if x counts a few things, so that only whole numbers are named below the axis."""
        low, high = self.x_limits()
        whole = all(float(v).is_integer() for p in self.panels for s in p.series for v in s.x[:3])
        return not self.x_names and high - low <= 12 and whole

    def y_limits(self) -> tuple[float, float]:
        """Return the range of y: `y_range`, or the data with a margin."""
        if self.y_range is not None:
            return self.y_range
        parts = [v for p in self.panels for s in p.series for v in (s.y, s.low, s.high)]
        values = np.concatenate(parts or [np.zeros(1)])
        values = values[np.isfinite(values)]
        if not len(values):
            return 0.0, 1.0
        low, high = float(values.min()), float(values.max())
        margin = 0.06 * (high - low) or 0.05 * (abs(high) or 1.0)
        return low - margin, high + margin


@dataclass(frozen=True)
class HeatMap:
    """Matrices, one a strategy.

    Attributes:
        name: stem of its files.
        title: what it shows.
        reading: how to read it.
        labels: the strategies.
        styles: their places in the palette.
        means: one (rows, columns) mean over seeds a strategy, NaN for empty cells.
        spreads: one (rows, columns) half-width of the interval a strategy.
        rows: what a row is.
        columns: what a column is.
        value: what a cell is.
        first_row: number of the first row; columns count from 1.
        low: value of the darkest colour; above `high` where less is better.
        high: value of the brightest.
        marked: True outlines the cells (k, k) of row number k.
        small: True tells values below .01 with a digit that counts, not as .00.
    """

    name: str
    title: str
    reading: str
    labels: tuple[str, ...]
    styles: tuple[int, ...]
    means: tuple[Array, ...]
    spreads: tuple[Array, ...]
    rows: str = "tasks trained"
    columns: str = "task tested"
    value: str = "accuracy"
    first_row: int = 0
    low: float = 0.0
    high: float = 1.0
    marked: bool = False
    small: bool = False

    def told(self, value: float) -> str:
        """Return a value as the text of a cell."""
        if self.small and 0 < abs(value) < 0.01:
            return f"{value:.0e}".replace("e-0", "e-")
        if abs(value) < 0.995:
            return f"{value:.2f}".replace("0.", ".", 1)
        return f"{value:.{0 if self.high == 1 else 2}f}"


@dataclass(frozen=True)
class Table:
    """Rows of plain values.

    Attributes:
        name: stem of its file.
        title: what it shows.
        reading: how to read it.
        heads: one a column; the first column names the row.
        rows: values.
    """

    name: str
    title: str
    reading: str
    heads: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Ranks:
    """Average ranks of k strategies, the best first.

    Attributes:
        name: stem of its files.
        title: what it shows.
        reading: how to read it.
        labels: the strategies.
        styles: their places in the palette.
        ranks: (k,), 1 is best.
        critical: difference of ranks that two strategies must have to differ.
        groups: (from rank, to rank) of strategies that do not differ.
    """

    name: str
    title: str
    reading: str
    labels: tuple[str, ...]
    styles: tuple[int, ...]
    ranks: Array
    critical: float
    groups: tuple[tuple[float, float], ...]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers in [low, high], about `about` of them.

    >>> ticks(0.0, 1.0), ticks(0, 37)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 10.0, 20.0, 30.0])
    """
    span = high - low
    if not np.isfinite(span) or span <= 0:
        return [low]
    rough = span / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(min((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.99), default=10 * power))
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [round(i * step, 12) for i in range(first, last + 1)]
