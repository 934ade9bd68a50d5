"""Constructions: how tasks are cut from a source. A stream = source x construction x scenario."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import ClassVar

import torch

from cl.build import Conditions
from cl.errors import ConfigError, expect
from cl.seeding import generator
from cl.streams.changes import INTERPOLATIONS, Change, Permutation, Rotation
from cl.streams.corruption import CORRUPTIONS
from cl.streams.sources.base import Table

ORDERS = ("fixed", "shuffled")
SPACINGS = ("even", "drawn")


@dataclass(frozen=True)
class Piece:
    """What a construction says about one task.

    Attributes:
        classes: classes of the source, in the order of the task's labels.
        change: what is done to its inputs, or None.
        group: the group whose samples it takes, where samples carry a group of their own; else None.
    """

    classes: tuple[int, ...]
    change: Change | None = None
    group: int | None = None


class Construction(ABC):
    """Cuts tasks from a source.

    Attributes:
        same_classes: True if all tasks hold the same classes, seen differently.
    """

    same_classes: bool

    @abstractmethod
    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one `Piece` a task.

        Args:
            table: the source.
            shape: shape of one sample after padding.
            seed: root seed.

        Raises:
            ConfigError: the source cannot be cut so.
        """


class Split(Construction):
    """Every task has classes of its own.

    Args:
        n_tasks: number of tasks K; sizes differ by one at most, larger tasks first. None where `sizes` or `classes` is
            given.
        sizes: classes of each task, e.g. (50, 10, 10, 10, 10, 10); must sum to the number of classes C.
        classes: the classes of each task by index; no class twice. Classes that are left out do not occur.
        class_order: ``fixed`` (by index) or ``shuffled`` by the seed.
    """

    same_classes = False

    def __init__(
        self,
        n_tasks: int | None = None,
        sizes: List[int] | None = None,
        classes: List[List[int]] | None = None,
        class_order: str = "fixed",
    ) -> None:
        named = {"n_tasks": n_tasks, "sizes": sizes, "classes": classes}
        given = [name for name, value in named.items() if value is not None]
        if len(given) != 1:
            raise ConfigError(
                "Expected exactly one of `stream.construction.n_tasks`, `sizes` and `classes`, "
                f"got {given or 'none'}; set the others to null"
            )
        expect(class_order in ORDERS, "stream.construction.class_order", f"in {list(ORDERS)}", class_order)
        expect(n_tasks is None or n_tasks > 0, "stream.construction.n_tasks", "> 0", n_tasks)
        if sizes is not None:
            expect(all(n > 0 for n in sizes), "stream.construction.sizes", "a list of numbers > 0", list(sizes))
        if classes is not None:
            rule = "fixed where classes are given"
            expect(class_order == "fixed", "stream.construction.class_order", rule, class_order)
        self.n_tasks, self.sizes, self.classes, self.class_order = n_tasks, sizes, classes, class_order

    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one piece a task."""
        if table.target != "class":
            raise ConfigError(f"Expected a source with class labels for a split, got target {table.target!r}")
        c = table.n_classes
        if self.classes is not None:
            lists = [[int(label) for label in task] for task in self.classes]
            rule = f"classes from 0 to {c - 1}, none of them twice, and no empty task"
            listed = [label for task in lists for label in task]
            right = len(set(listed)) == len(listed) and set(listed) <= set(range(c)) and all(lists)
            expect(right and bool(lists), "stream.construction.classes", rule, lists)
            return [Piece(tuple(task)) for task in lists]
        if self.sizes is not None:
            sizes = [int(n) for n in self.sizes]
            expect(sum(sizes) == c, "stream.construction.sizes", f"to sum to the {c} classes of the source", sizes)
        else:
            k = self.n_tasks or 0
            expect(k <= c, "stream.construction.n_tasks", f"<= {c}, the number of classes of the source", k)
            sizes = [c // k + (i < c % k) for i in range(k)]
        order = list(range(c))
        if self.class_order == "shuffled":
            order = torch.randperm(c, generator=generator(seed, "classes")).tolist()
        ends = torch.tensor(sizes).cumsum(0).tolist()
        return [Piece(tuple(order[end - n : end])) for n, end in zip(sizes, ends, strict=True)]


class Permuted(Construction):
    """Every task shows all classes through a permutation of the pixels of its own (Goodfellow et al. 2013).

    Args:
        n_tasks: number of tasks K.
        permute_first: False leaves the first task as it is.
        steps: sequences (T, D) alone: True permutes whole time steps, False all T x D values.
    """

    same_classes = True

    def __init__(self, n_tasks: int = 10, permute_first: bool = False, steps: bool = False) -> None:
        expect(n_tasks > 0, "stream.construction.n_tasks", "> 0", n_tasks)
        self.n_tasks, self.permute_first, self.steps = n_tasks, permute_first, steps

    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one piece a task."""
        if table.vocabulary:
            raise ConfigError("Expected float inputs to permute, got tokens")
        rule = "false for samples that are no sequences (T, D)"
        expect(not self.steps or len(shape) == 2, "stream.construction.steps", rule, self.steps)
        first = 2 if len(shape) == 3 else 1
        last = first if self.steps else len(shape)
        count = math.prod(shape[first - 1 : last])
        classes = tuple(range(table.n_classes))
        pieces = []
        for k in range(self.n_tasks):
            order = torch.randperm(count, generator=generator(seed, "permutation", k))
            plain = k == 0 and not self.permute_first
            pieces.append(Piece(classes, None if plain else Permutation(order, first, last)))
        return pieces


class Rotated(Construction):
    """Every task shows all classes turned by an angle of its own, counter-clockwise.

    Lopez-Paz and Ranzato 2017 draw one angle in each of 20 equal bins of [0, 180), nearest neighbour.

    Args:
        n_tasks: number of tasks K; may be None where `angles` are given.
        angles: degrees, one a task, or None.
        low, high: range of angles in degrees, cut into K equal bins.
        spacing: ``even`` (the lower end of each bin) or ``drawn`` (uniform in each bin, by the seed).
        interpolation: ``nearest`` or ``bilinear``.
    """

    same_classes = True
    only_with: ClassVar[Conditions] = {name: {"angles": (None,)} for name in ("low", "high", "spacing")}

    def __init__(
        self,
        n_tasks: int | None = 20,
        angles: List[float] | None = None,
        low: float = 0.0,
        high: float = 180.0,
        spacing: str = "drawn",
        interpolation: str = "nearest",
    ) -> None:
        if (n_tasks is None) == (angles is None):
            raise ConfigError(
                "Expected exactly one of `stream.construction.n_tasks` and `stream.construction.angles`, "
                f"got {n_tasks} and {angles}; set the other to null"
            )
        expect(n_tasks is None or n_tasks > 0, "stream.construction.n_tasks", "> 0", n_tasks)
        expect(angles is None or len(angles) > 0, "stream.construction.angles", "a list of degrees", angles)
        finite = all(math.isfinite(a) for a in (*(angles or ()), low, high))
        expect(finite, "stream.construction.angles", "numbers, as `low` and `high`", [angles, low, high])
        expect(high > low, "stream.construction.high", f"> low ({low})", high)
        expect(spacing in SPACINGS, "stream.construction.spacing", f"in {list(SPACINGS)}", spacing)
        expect(
            interpolation in INTERPOLATIONS, "stream.construction.interpolation", f"in {INTERPOLATIONS}", interpolation
        )
        self.n_tasks, self.low, self.high = n_tasks, low, high
        self.angles, self.spacing, self.interpolation = angles, spacing, interpolation

    def degrees(self, seed: int) -> list[float]:
        """Return the angle of each task."""
        if self.angles is not None:
            return [float(a) for a in self.angles]
        k = self.n_tasks or 0
        within = torch.zeros(k, dtype=torch.float64)
        if self.spacing == "drawn":
            within = torch.rand(k, dtype=torch.float64, generator=generator(seed, "angles"))
        places: list[float] = (self.low + (torch.arange(k) + within) * (self.high - self.low) / k).tolist()
        return places

    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one piece a task."""
        if len(shape) != 3:
            raise ConfigError(f"Expected images (C, H, W) to rotate, got samples of shape {shape}")
        classes, size = tuple(range(table.n_classes)), (shape[1], shape[2])
        return [Piece(classes, Rotation(angle, size, self.interpolation)) for angle in self.degrees(seed)]


class Corrupted(Construction):
    """Every task shows all classes through a corruption of its own (Hendrycks and Dietterich 2019).

    Args:
        kinds: one of `cl.streams.corruption.CORRUPTIONS` a task, or ``none``.
        severity: strength, 1 to 5.
    """

    same_classes = True

    def __init__(
        self, kinds: List[str] = ("none", "blur", "contrast", "pixelate", "occlude", "stripes"), severity: int = 3
    ) -> None:
        known = ["none", *CORRUPTIONS]
        rule = f"a list of {known}"
        expect(len(kinds) > 0 and all(k in known for k in kinds), "stream.construction.kinds", rule, list(kinds))
        self.changes = [None if kind == "none" else CORRUPTIONS[kind](severity) for kind in kinds]

    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one piece a task."""
        if len(shape) != 3:
            raise ConfigError(f"Expected images (C, H, W) to corrupt, got samples of shape {shape}")
        return [Piece(tuple(range(table.n_classes)), change) for change in self.changes]


class Relabelled(Construction):
    """Every task shows the same inputs under other labels: in ``domain``, output i means another class in each task.

    Args:
        n_tasks: number of tasks K.
        relabel_first: False leaves the first task's labels as they are.
    """

    same_classes = True

    def __init__(self, n_tasks: int = 5, relabel_first: bool = False) -> None:
        expect(n_tasks > 0, "stream.construction.n_tasks", "> 0", n_tasks)
        self.n_tasks, self.relabel_first = n_tasks, relabel_first

    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one piece a task."""
        if table.target != "class":
            raise ConfigError(f"Expected a source with class labels to relabel, got target {table.target!r}")
        orders = [torch.randperm(table.n_classes, generator=generator(seed, "labels", k)) for k in range(self.n_tasks)]
        if not self.relabel_first:
            orders[0] = torch.arange(table.n_classes)
        return [Piece(tuple(order.tolist())) for order in orders]


class Sequence(Construction):
    """Group after group of the source: data set after data set, alphabet after alphabet, domain after domain.

    Args:
        order: ``fixed`` (as the source lists its groups) or ``shuffled`` by the seed.
        groups: names of the groups to take, in order, or None for all of them.
        n_tasks: take only the first n of the ordered groups, or None for all.
    """

    def __init__(self, order: str = "fixed", groups: List[str] | None = None, n_tasks: int | None = None) -> None:
        expect(order in ORDERS, "stream.construction.order", f"in {list(ORDERS)}", order)
        expect(n_tasks is None or n_tasks > 0, "stream.construction.n_tasks", "> 0", n_tasks)
        rule = "a list of names, or null"
        expect(groups is None or len(groups) > 0, "stream.construction.groups", rule, groups)
        self.order, self.groups, self.n_tasks = order, groups, n_tasks
        self.same_classes = False

    def pieces(self, table: Table, shape: tuple[int, ...], seed: int) -> list[Piece]:
        """Return one piece a group."""
        if not table.groups:
            raise ConfigError("Expected a source with groups (several data sets, alphabets, domains) for a sequence")
        chosen = list(range(len(table.groups)))
        if self.groups is not None:
            for name in self.groups:
                expect(name in table.group_names, "stream.construction.groups", f"in {list(table.group_names)}", name)
            chosen = [table.group_names.index(name) for name in self.groups]
        if self.order == "shuffled":
            drawn = torch.randperm(len(chosen), generator=generator(seed, "groups")).tolist()
            chosen = [chosen[i] for i in drawn]
        if self.n_tasks is not None:
            rule = f"<= {len(chosen)}, the number of groups"
            expect(self.n_tasks <= len(chosen), "stream.construction.n_tasks", rule, self.n_tasks)
            chosen = chosen[: self.n_tasks]
        own = table.train.group is not None
        return [Piece(table.groups[g], None, g if own else None) for g in chosen]
