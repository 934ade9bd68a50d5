"""Which examples are forgotten: how often, which go first, and what the most forgotten ones look like."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cl.files import atomic_path
from cl.groups import Group
from cl.report.figure import Figure, Panel
from cl.report.member import Member
from cl.report.samples import Samples, picture, pixels, read_samples
from cl.results import Results

if TYPE_CHECKING:
    from cl.streams.base import Stream

Array = NDArray[np.float64]
NAME = "forgotten.npz"
SHOWN = 10  # examples of a run
STRATEGIES = 8  # strategies whose examples are shown as pictures
MOST = 4  # events told apart; more are one class


@dataclass(frozen=True)
class Example:
    """A training example that was forgotten.

    Attributes:
        task: from 0.
        row: of the data set.
        label: its class.
        events: how often it turned from right to wrong.
        first: the task (from 1) after which it was first forgotten.
    """

    task: int
    row: int
    label: int
    events: int
    first: int


def examples(results: Results) -> list[Example]:
    """Return every example with an event, the most forgotten first, and of these the first forgotten."""
    names = ("forgetting_events", "first_forgotten", "example_index", "example_label")
    if any(name not in results.measures for name in names):
        return []
    events, first, row, label = (np.asarray(results.measures[name]["values"]) for name in names)
    lost = np.argwhere(np.nan_to_num(events) > 0)
    task, place = lost[:, 0], lost[:, 1]
    order = np.lexsort((row[task, place], first[task, place], -events[task, place]))
    columns = [task, *(table[task, place].astype(int) for table in (row, label, events, first))]
    return [Example(*values) for values in zip(*(c[order].tolist() for c in columns), strict=True)]


def write_forgotten(stream: "Stream", results: Results, folder: Path) -> None:
    """Write ``forgotten.npz``, pictures of the most forgotten examples, into a run folder.

    Nothing without the measure ``events``, and for a stream that cannot be pictured.
    """
    import torch

    found: list[tuple[Any, int, str]] = []
    for e in examples(results)[:SHOWN]:
        data = stream[e.task].train
        place = (data.index == e.row).nonzero()[:1, 0]
        x = data.inputs(place).cpu()
        image = pixels(x) if torch.is_floating_point(x) else None
        if image is None:
            return
        names = dict(zip(stream[e.task].classes, stream.class_names[e.task], strict=False))
        times = "once" if e.events == 1 else f"{e.events} times"
        found.append((image, e.task, f"{names.get(e.label, e.label)}: {times}, first by task {e.first}"))
    if not found or len({image.shape for image, _, _ in found}) > 1:
        return
    images, tasks, labels = zip(*found, strict=True)
    with atomic_path(folder / NAME) as path, path.open("wb") as file:
        made = Samples(np.concatenate(images), np.array(tasks, np.int64), np.array(labels))
        np.savez_compressed(file, allow_pickle=False, **vars(made))


def histogram(members: Sequence[Member]) -> Figure | None:
    """Return how large a share of the examples of all tasks but the last was forgotten how often."""
    shown = [m for m in members if "forgetting_events" in m.seen and m.n_tasks > 1]
    if not shown:
        return None
    largest = int(max(np.nan_to_num(m.seen["forgetting_events"][1]).max() for m in shown))
    most = min(MOST, largest)
    names = ("never right", *(str(n) for n in range(most)), f"{most} or more" if largest > most else str(most))
    points = []
    for i, m in enumerate(shown):
        events, rows = (m.seen[name][1][:, :-1] for name in ("forgetting_events", "example_index"))
        totals = np.isfinite(rows).sum(axis=(1, 2)).tolist()
        shares = np.stack([_shares(e, total, most) for e, total in zip(events, totals, strict=True)])
        points.append(m.beside(np.arange(len(names), dtype=np.float64), shares, i, len(shown), (0, 1)))
    return Figure(
        "forgetting_events",
        "How often examples are forgotten",
        "Forgetting events of single training examples (Toneva et al. 2019), counted between tasks: right after one "
        "task, wrong after the next. All tasks but the last. figures/forgotten_examples.csv has every example with an "
        "event: task, row of the data set, class, number of events, the task after which it went first.",
        "events",
        "share of examples",
        (Panel("", tuple(points)),),
        x_names=names,
        wide=False,
    )


def _shares(events: Array, total: int, most: int) -> Array:
    """Return the shares of examples never right and forgotten 0, 1, ..., `most` or more times.

    Args:
        events: (K, n); NaN for an example never right, and where a task has fewer than n.
        total: examples in all.
        most: more events than these count as these.

    >>> _shares(np.array([[0.0, 2.0], [np.nan, 5.0]]), 4, 2).tolist()
    [0.25, 0.25, 0.0, 0.5]
    """
    learned = events[np.isfinite(events)].astype(int)
    counts = np.bincount(np.minimum(learned, most), minlength=most + 1)
    return np.asarray(np.concatenate([[total - len(learned)], counts]) / max(total, 1))


def section(members: Sequence[Member]) -> str:
    """Return the most forgotten examples of the first run of each strategy as HTML; "" where none has pictures."""
    rows = ""
    for m in members[:STRATEGIES]:
        found = next((s for s in (read_samples(r.folder / NAME) for r in m.group.runs) if s is not None), None)
        if found is not None:
            pictures = "".join(
                picture(image, f"{label} (task {task + 1})")
                for image, task, label in zip(found.pixels, found.task.tolist(), found.label.tolist(), strict=True)
            )
            rows += f'<div class="samples told" data-s="{m.style}"><b>{escape(m.label)}</b>{pictures}</div>'
    if not rows:
        return ""
    return (
        f'<figure class="chart"><h3>The most forgotten examples</h3>{rows}<figcaption>Training examples that turned '
        "from right to wrong most often, of the first run of each strategy: class, how often, the task after which it "
        "was first forgotten, and its own task.</figcaption></figure>"
    )


def write_csv(groups: Sequence[Group], path: Path) -> bool:
    """Write every forgotten example of every run as csv, the most forgotten of a run first; False if there is none."""
    lines = list(_lines(groups))
    if not lines:
        return False
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["stream", "strategy", "seed", "task", "row", "class", "events", "first_forgotten_after_task"])
        writer.writerows(lines)
    return True


def _lines(groups: Sequence[Group]) -> Iterator[tuple[object, ...]]:
    for g in groups:
        for run in g.runs:
            for e in examples(run.results) if run.results is not None else ():
                yield g.stream, g.label, run.seed, e.task + 1, e.row, e.label, e.events, e.first
