"""Which samples a split holds, and which labels they carry: host draws, each a function of (seed, purpose, task)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.errors import expect
from cl.seeding import generator

SELECTIONS = ("drawn", "first")
TAILS = ("fixed", "shuffled")


def strata(y: Tensor, rows: Tensor) -> list[Tensor]:
    """Return `rows` by class, for a stratified draw: rows of one label each, in order; all rows where y is not (N,)."""
    if y.dim() != 1 or y.is_floating_point():
        return [rows]
    labels = y[rows]
    return [rows[labels == c] for c in torch.unique(labels)]


def shares(counts: Sequence[int], wanted: int) -> list[int]:
    """Split `wanted` over strata in proportion to their `counts`, by largest remainder; the sum is exact.

    >>> shares([50, 30, 20], 11)
    [6, 3, 2]
    """
    total = sum(counts)
    exact = [wanted * n / total for n in counts]
    given = [int(e) for e in exact]
    by_remainder = sorted(range(len(counts)), key=lambda i: (given[i] - exact[i], i))
    for i in by_remainder[: wanted - sum(given)]:
        given[i] += 1
    return given


def held_of(n: int, size: float | int) -> int:
    """Return how many of n samples are held out.

    Args:
        n: the samples of a task.
        size: a fraction in (0, 1), or a number of samples.

    Raises:
        ConfigError: none would be held out, or none left to train on.
    """
    rule = f"in (0, 1), or a number of samples below {n}, the samples of a task"
    expect(0 < size < 1 or (float(size).is_integer() and 1 <= size < n), "stream.validation", rule, size)
    found = round(size * n) if size < 1 else int(size)
    rule = f"a share that holds out some of the {n} samples of a task and leaves some to train on"
    expect(0 < found < n, "stream.validation", rule, size)
    return found


def hold_out(y: Tensor, rows: Tensor, size: float | int, seed: int) -> tuple[Tensor, Tensor]:
    """Divide rows into (training, validation), stratified by label and drawn by the seed.

    A sample is drawn by its class alone, not by its task: where tasks share samples (permuted, rotated), a validation
    sample of one task is a training sample of none.

    Args:
        y: (N,) labels of the source.
        rows: (n,) rows of the task.
        size: a fraction in (0, 1), or a number of samples a task.
        seed: root seed.

    Raises:
        ConfigError: see `held_of`.
    """
    groups = strata(y, rows)
    counts = [len(g) for g in groups]
    wanted = shares(counts, held_of(len(rows), size))
    out: list[Tensor] = []
    for own, n in zip(groups, wanted, strict=True):
        label = int(y[own[0]]) if len(groups) > 1 else 0
        drawn = torch.randperm(len(own), generator=generator(seed, "validation", label))
        out.append(own[drawn[:n]])
    held = torch.cat(out).sort().values
    return rows[~torch.isin(rows, held)], held


def hold_out_last(group: Tensor | None, rows: Tensor, size: float | int, reach: int) -> tuple[Tensor, Tensor]:
    """Divide windows of series into (training, validation): the last ones of every group, which share no value.

    Args:
        group: (N,) group of each sample of the source, or None for one.
        rows: (n,) rows of the task, in the order of time inside a group.
        size: a fraction in (0, 1), or a number of samples a task.
        reach: how many samples before the first one held out share values with it; they are dropped.

    Raises:
        ConfigError: see `held_of`; or nothing is left to train on.
    """
    owners = torch.zeros_like(rows) if group is None else group[rows]
    parts = [rows[owners == g] for g in torch.unique(owners)]
    wanted = shares([len(p) for p in parts], held_of(len(rows), size))
    kept = [part[: max(len(part) - n - (reach if n > 0 else 0), 0)] for part, n in zip(parts, wanted, strict=True)]
    rule = f"a share that leaves some of the {len(rows)} windows of a task, {reach} of which are dropped, to train on"
    expect(sum(map(len, kept)) > 0, "stream.validation", rule, size)
    held = [part[len(part) - n :] for part, n in zip(parts, wanted, strict=True)]
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def limit(rows: Tensor, n: int | None, selection: str, seed: int, purpose: str, k: int, name: str) -> Tensor:
    """Keep n of the rows: ``first`` in stored order, or ``drawn`` by the seed (the stored order is kept)."""
    if n is None:
        return rows
    expect(0 < n <= len(rows), name, f"in 1 to {len(rows)}, the samples of task {k + 1}", n)
    if selection == "first":
        return rows[:n]
    return rows[torch.randperm(len(rows), generator=generator(seed, purpose, k))[:n].sort().values]


def long_tail(y: Tensor, rows: Tensor, rank: dict[int, int], factor: float, seed: int, k: int) -> Tensor:
    """Thin the classes out to a long tail: rank r of C keeps n * factor ** (-r / (C - 1)) samples (Cui et al. 2019).

    Args:
        y: (N,) labels of the source.
        rows: (n,) rows of the task.
        rank: from class to its place from the most frequent, 0, to the rarest, C - 1.
        factor: samples of the most frequent class over samples of the rarest, >= 1.
        seed: root seed.
        k: task.
    """
    if factor == 1:
        return rows
    steps = max(len(rank) - 1, 1)
    kept = []
    for own in strata(y, rows):
        label = int(y[own[0]])
        n = max(1, round(len(own) * factor ** (-rank[label] / steps)))
        drawn = torch.randperm(len(own), generator=generator(seed, "imbalance", k, label))
        kept.append(own[drawn[:n]])
    return torch.cat(kept).sort().values


def noisy(labels: Tensor, choices: Sequence[int], fraction: float, seed: int, k: int) -> Tensor:
    """Give a fraction of the labels another value, uniform over the task's other outputs.

    Args:
        labels: (n,) outputs.
        choices: the task's outputs.
        fraction: probability of each label to change, in [0, 1].
        seed: root seed.
        k: task.
    """
    if fraction == 0 or len(choices) < 2:
        return labels
    g = generator(seed, "noise", k)
    outputs = torch.tensor(sorted(choices))
    place = torch.searchsorted(outputs, labels)
    other = outputs[(place + torch.randint(1, len(outputs), labels.shape, generator=g)) % len(outputs)]
    return torch.where(torch.rand(labels.shape, generator=g) < fraction, other, labels)
