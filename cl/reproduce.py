"""Published tables as data: which runs make a cell, what was published, what was measured, and a verdict."""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from cl.errors import ConfigError, expect, nearest
from cl.groups import final
from cl.metrics.base import find, per_replica
from cl.results import Results

FIELDS = {"source", "quantity", "scale", "seeds", "tolerance", "common", "columns", "rows", "note"}


@dataclass(frozen=True)
class Cell:
    """One number of a published table.

    Attributes:
        row, column: where it stands.
        words: overrides of the runs that make it, without the seed.
        quantity: name of the metric, or of what a measure saw (its mean after the last task, see `cl.groups.final`).
        mean: published value; NaN where the paper tells none.
        sd: published standard deviation over seeds, or None.
        tolerance: distance from `mean` that still counts as reached.
    """

    row: str
    column: str
    words: tuple[str, ...]
    quantity: str
    mean: float
    sd: float | None
    tolerance: float

    @property
    def margin(self) -> float:
        """Distance from the published mean that counts as reached: two deviations, or the tolerance."""
        return max(self.tolerance, 2 * (self.sd or 0.0))


@dataclass(frozen=True)
class Table:
    """A published table; see conf/reproduce/."""

    name: str
    title: str
    source: str
    note: str
    seeds: int
    scale: float
    cells: tuple[Cell, ...]


def read(path: Path) -> Table:
    """Read a table.

    Raises:
        ConfigError: the file lacks a key or has one too many.
    """
    text = path.read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    for key in found:
        expect(key in FIELDS, f"{path.name}: key", f"in {sorted(FIELDS)}", key)
    cells = []
    for row, spec in found["rows"].items():
        for column, words in found["columns"].items():
            if column in spec:
                published = spec[column]
                all_words = [*found["common"], *words, *spec["overrides"], *published.get("overrides", [])]
                quantity = published.get("quantity", found["quantity"])
                cells.append(
                    Cell(
                        row,
                        column,
                        tuple(all_words),
                        quantity,
                        _number(published["mean"]),
                        published.get("sd"),
                        float(found["tolerance"]),
                    )
                )
    title = text.splitlines()[0].lstrip("# ")
    return Table(path.stem, title, found["source"], found.get("note", ""), found["seeds"], found["scale"], tuple(cells))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def select(table: Table, rows: Sequence[str], columns: Sequence[str]) -> list[Cell]:
    """Return the cells in the given rows and columns; an empty list stands for all.

    Raises:
        ConfigError: there is no such row or column.
    """
    for kind, wanted, known in (
        ("row", rows, {c.row for c in table.cells}),
        ("column", columns, {c.column for c in table.cells}),
    ):
        for name in wanted:
            if name not in known:
                raise ConfigError(f"Expected `--{kind}` in {sorted(known)}, got {name!r}{nearest(name, known)}")
    return [c for c in table.cells if (not rows or c.row in rows) and (not columns or c.column in columns)]


@dataclass(frozen=True)
class Measured:
    """What the runs of a cell gave.

    Attributes:
        values: one a seed, in the units of the table.
    """

    cell: Cell
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN without any."""
        return float(np.mean(self.values)) if self.values else float("nan")

    @property
    def interval(self) -> float:
        """Half width of the 95 % confidence interval of the mean (Student's t); NaN for one seed."""
        n = len(self.values)
        return float(stats.t.ppf(0.975, n - 1) * np.std(self.values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")

    @property
    def verdict(self) -> str:
        """How measured and published value compare.

        ``reached`` (within the margin), ``above``, ``below``, ``open`` (outside the margin, but the measured interval
        holds the published value: more seeds would tell), ``not published``, or ``failed`` (no run came to its end).
        """
        if not self.values:
            return "failed"
        if math.isnan(self.cell.mean):
            return "not published"
        if abs(self.mean - self.cell.mean) <= self.cell.margin:
            return "reached"
        if abs(self.mean - self.cell.mean) <= self.interval:
            return "open"
        return "above" if self.mean > self.cell.mean else "below"


def measure(cell: Cell, scale: float, folders: Sequence[Path]) -> Measured:
    """Read the runs of a cell; failed runs count as missing."""
    values = []
    for folder in folders:
        results = Results.load(folder)
        seen = results.measures.get(cell.quantity)
        if seen is not None:
            found = final(seen, np.asarray(seen["values"], np.float64)[None])
        else:
            metric = find([cell.quantity])[0]
            found = per_replica(metric(**{n: getattr(results, n) for n in metric.inputs}))
        values += (found * scale).tolist()
    return Measured(cell, tuple(values))


def markdown(table: Table, measured: Sequence[Measured], command: str, date: str, before: str = "") -> str:
    """Return the table as Markdown: measured ± interval beside published, and a verdict a cell.

    Args:
        table: what was published.
        measured: the cells that were run.
        command: what ran them.
        date: when.
        before: an earlier section of this table; its cells that were not run again stay, with their command.
    """
    digits = 2 if table.scale > 1 else 4  # fractions are told to a hundredth of a per cent
    rows = {(m.cell.row, m.cell.column): _row(m, digits) for m in measured}
    kept = {cell: row for cell, row in _rows(before).items() if cell not in rows}
    order = [(c.row, c.column) for c in table.cells]
    shown = [found for cell in order if (found := rows.get(cell, kept.get(cell, "")))]
    commands = [line for line in before.splitlines() if line.startswith("`lethe reproduce ")]
    commands = [line for line in commands if any(_made(line, *cell) for cell in kept)]
    lines = [f"## {table.title}", "", f"Source: {table.source}.", ""]
    for line in (*commands, f"`{command}`, {date}."):
        lines += [line, ""]
    if table.note:
        lines += [" ".join(table.note.split()), ""]
    lines += [
        "| method | column | published | measured (mean ± 95 % interval) | seeds | verdict |",
        "|---|---|---|---|---|---|",
        *shown,
    ]
    told = sum(row.split(" | ")[2] != "-" for row in shown)
    reached, unsure = (sum(row.endswith(f"| {verdict} |") for row in shown) for verdict in ("reached", "open"))
    summary = f"{reached} of {told} cells within two published standard deviations or the tolerance"
    if not told:
        summary = "No value to compare with is published"
    more = f"; {unsure} open: the interval of so few seeds holds the published value" if unsure else ""
    return "\n".join([*lines, "", f"{summary}{more}.", ""])


def _row(m: Measured, digits: int) -> str:
    sd = "" if m.cell.sd is None else f" ± {m.cell.sd:g}"
    least = 10.0**-digits

    def told(value: float) -> str:
        return f"{value:.1e}" if 0 < abs(value) < least else f"{value:.{digits}f}"  # a loss that is nearly none

    spread = f" ± {told(m.interval)}" if len(m.values) > 1 else ""
    value = f"{told(m.mean)}{spread}" if m.values else "-"
    published = "-" if math.isnan(m.cell.mean) else f"{m.cell.mean:g}{sd}"
    return f"| {m.cell.row} | {m.cell.column} | {published} | {value} | {len(m.values)} | {m.verdict} |"


def _rows(section: str) -> dict[tuple[str, str], str]:
    """Return the rows of a section's table by (row, column)."""
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return {(line.split(" | ")[0].removeprefix("| "), line.split(" | ")[1]): line for line in lines}


def _made(line: str, row: str, column: str) -> bool:
    """Return True if the command that a line of a section quotes made this cell."""
    words = shlex.split(line.split("`")[1])
    chosen = {
        kind: [after for word, after in pairwise(words) if word == f"--{kind}"] or [cell]
        for kind, cell in (("row", row), ("column", column))
    }
    return row in chosen["row"] and column in chosen["column"]


def section(path: Path, name: str) -> str:
    """Return a table's section of a results page, empty where there is none."""
    begin, end = _marks(name)
    return path.read_text().partition(begin)[2].partition(end)[0] if path.exists() else ""


def insert(path: Path, name: str, section: str) -> None:
    """Put a table's section into a results page, in place of the one that was there."""
    begin, end = _marks(name)
    text = path.read_text() if path.exists() else "# Published numbers, measured\n"
    block = f"{begin}\n{section}{end}\n"
    if begin in text:
        head, _, rest = text.partition(begin)
        text = head + block + rest.partition(f"{end}\n")[2]
    else:
        text = f"{text.rstrip()}\n\n{block}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def as_json(table: Table, measured: Sequence[Measured]) -> str:
    """Return what was measured as JSON, one object a cell."""
    cells = [
        {
            "row": m.cell.row,
            "column": m.cell.column,
            "published": m.cell.mean,
            "sd": m.cell.sd,
            "values": m.values,
            "mean": m.mean,
            "verdict": m.verdict,
        }
        for m in measured
    ]
    return json.dumps({"name": table.name, "source": table.source, "cells": cells}, indent=1)
