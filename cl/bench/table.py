"""Measured ratios: taken in turns, printed as one table, kept as json."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        section: what the line belongs to.
        name: what was measured.
        against: what it is compared with.
        seconds: of every round.
        reference: seconds of what it is compared with, of every round.
        bar: the ratio that is asked for, or None.
        larger: True where the ratio shall be at least the bar (a speed-up: reference / seconds), False at most.
        note: anything else.
    """

    section: str
    name: str
    against: str
    seconds: list[float]
    reference: list[float]
    bar: float | None = None
    larger: bool = False
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """The ratio of every round."""
        pairs = zip(self.seconds, self.reference, strict=True)
        return [b / a if self.larger else a / b for a, b in pairs]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return float(np.median(self.ratios))

    @property
    def verdict(self) -> str:
        """Whether the bar is met; "" without one."""
        if self.bar is None:
            return ""
        return "yes" if (self.ratio >= self.bar if self.larger else self.ratio <= self.bar) else "NO"

    def plain(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return {**vars(self), "ratio": self.ratio, "met": self.verdict}


def in_turns(runs: Sequence[Callable[[], float]], rounds: int, warm: bool = True) -> list[list[float]]:
    """Run several things in turns, every second round backwards, and return the seconds of each, one a round."""
    if warm:
        for run in runs:
            run()
    seconds: list[list[float]] = [[] for _ in runs]
    for i in range(rounds):
        order = range(len(runs)) if i % 2 == 0 else reversed(range(len(runs)))
        for j in order:
            seconds[j].append(runs[j]())
    return seconds


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what the figures were made on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "threads": threads, "torch": torch.__version__, "python": platform.python_version()}


def show(rows: Sequence[Row]) -> str:
    """Return the table as text: median seconds, median ratio with its range, bar."""
    header = ("section", "measured", "s", "against", "s", "ratio", "range", "bar", "met", "")
    lines = [header]
    for r in rows:
        sign = ">=" if r.larger else "<="
        lines.append(
            (
                r.section,
                r.name,
                f"{np.median(r.seconds):.3f}",
                r.against,
                f"{np.median(r.reference):.3f}",
                f"{r.ratio:.3f}",
                f"{min(r.ratios):.3f}-{max(r.ratios):.3f}",
                "" if r.bar is None else f"{sign} {r.bar:g}",
                r.verdict,
                r.note,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(f"{v:<{w}}" for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def save(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Write the table and the machine as json."""
    path.write_text(json.dumps({"machine": facts, "rows": [r.plain() for r in rows]}, indent=1) + "\n")
