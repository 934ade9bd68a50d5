"""The batches of a group of replicas: one gather a step where their data share a storage."""

from collections.abc import Sequence
from typing import Protocol

import torch

from cl.batch import Batch
from cl.engine import Engine
from cl.seeding import step_keys
from cl.streams.data import Data, Joined, Transform, as_float
from cl.streams.transforms import Pipeline


class Feed(Protocol):
    """Gives the next batch of some lanes: fields (n, B, ...), keys (n,)."""

    def batch(self, lanes: slice) -> Batch:
        """Return the batch of the step that the engines of `lanes` take next; all of them have the same size."""

    def taken(self, lanes: slice) -> None:
        """Note that the step was taken."""


def feed(engines: Sequence[Engine]) -> Feed:
    """Return the quickest feed for replicas that have begun a task."""
    parts = [e.data.parts for e in engines]
    shared = all(
        len(p) == 1 and e.data.repeats == [1] and type(p[0]) in (Data, Joined) and p[0].storage is parts[0][0].storage
        for e, p in zip(engines, parts, strict=True)
    )
    once = engines[0].schedule.updates == 1  # else the steps on a batch share what was drawn for its first
    if shared and once and len({(type(p[0]), p[0].labels.shape[1:], p[0].labels.dtype) for p in parts}) == 1:
        return Gathered(engines)
    return OneByOne(engines)


class OneByOne:
    """Every replica reads its own batches; they are stacked."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.batches = [e.batches() for e in engines]
        self.next: dict[int, Batch] = {}

    def batch(self, lanes: slice) -> Batch:
        """See `Feed`."""
        for i in range(lanes.start, lanes.stop):
            if i not in self.next:
                self.next[i] = next(self.batches[i])
        found = [self.next[i] for i in range(lanes.start, lanes.stop)]
        x, y, task, key = (torch.stack(field) for field in zip(*(b[:4] for b in found), strict=True))
        raw = [b.stored for b in found if b.stored is not None]
        return Batch(x, y, task, key, torch.stack(raw) if len(raw) == len(found) else x)  # vmap takes tensors alone

    def taken(self, lanes: slice) -> None:
        """See `Feed`."""
        for i in range(lanes.start, lanes.stop):
            del self.next[i]


class Gathered:
    """Replicas whose samples lie in one storage: rows and labels of an epoch are put in order at its beginning."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = list(engines)
        self.data = [e.data.parts[0] for e in engines]
        first, n = self.data[0], max(e.schedule.n for e in engines)
        size, device = len(engines), first.device
        self.epochs = [-1] * size
        self.rows = torch.zeros(size, n, dtype=torch.long, device=device)
        self.labels = torch.zeros(size, n, *first.labels.shape[1:], dtype=first.labels.dtype, device=device)
        self.tasks = torch.tensor([d.task for d in self.data], device=device)[:, None].repeat(1, n)
        self.keys = torch.zeros(size, max(e.schedule.steps for e in engines), dtype=torch.long, device=device)
        for i, e in enumerate(engines):
            left = e.schedule.steps - e.step
            self.keys[i, e.step : e.schedule.steps] = step_keys(e.seed, e.task, e.step, left, device)
        self.transforms = [d.transform for d in self.data]
        self.alike = all(same_transform(t, self.transforms[0]) for t in self.transforms)

    def batch(self, lanes: slice) -> Batch:
        """See `Feed`."""
        steps = [e.step for e in self.engines[lanes]]
        for i in range(lanes.start, lanes.stop):
            self._turn(i)
        schedule = self.engines[lanes.start].schedule
        first = steps[0] % schedule.steps_per_epoch * schedule.batch_size
        last = min(first + schedule.batch_size, schedule.n)
        if len(set(steps)) == 1:
            fields = [t[lanes, first:last] for t in (self.rows, self.labels, self.tasks)]
            keys = self.keys[lanes, steps[0]]
        else:
            places = [self._place(i) for i in range(lanes.start, lanes.stop)]
            fields = [
                torch.stack([t[i, place] for i, place in enumerate(places, lanes.start)])
                for t in (self.rows, self.labels, self.tasks)
            ]
            keys = torch.stack([self.keys[i, step] for i, step in enumerate(steps, lanes.start)])
        rows, y, task = fields
        stored = self.data[0].storage.index_select(0, rows.flatten())
        if self.alike:
            x = self.transforms[0](stored, None)
            x = x.reshape(*rows.shape, *x.shape[1:])
            return Batch(x, y, task, keys, x)  # vmap takes tensors alone
        stored = stored.reshape(*rows.shape, *stored.shape[1:])
        x = torch.stack([t(stored[i], keys[i]) for i, t in enumerate(self.transforms[lanes])])
        return Batch(x, y, task, keys, stored)

    def taken(self, lanes: slice) -> None:
        """See `Feed`: everything follows from the engines' steps."""

    def _place(self, i: int) -> slice:
        engine = self.engines[i]
        first = engine.step % engine.schedule.steps_per_epoch * engine.schedule.batch_size
        return slice(first, min(first + engine.schedule.batch_size, engine.schedule.n))

    def _turn(self, i: int) -> None:
        """Put a lane's samples in the order of its epoch, at the beginning of one."""
        engine, data = self.engines[i], self.data[i]
        epoch = engine.step // engine.schedule.steps_per_epoch
        if epoch == self.epochs[i]:
            return
        self.epochs[i] = epoch
        order = engine.schedule.order(epoch).to(data.device, non_blocking=True)
        n = len(order)
        self.rows[i, :n] = data.index[order]
        self.labels[i, :n] = data.labels[order]
        if isinstance(data, Joined):
            self.tasks[i, :n] = data.tasks[order]


def same_transform(a: Transform, b: Transform) -> bool:
    """Return True if two transforms do the same to every sample, whatever the key."""
    if a is as_float or b is as_float:
        return a is b
    if not (type(a) is Pipeline and type(b) is Pipeline):
        return False
    return a.augmentation is None and b.augmentation is None and a.describe() == b.describe()


def same_samples(splits: Sequence[Data]) -> bool:
    """Return True if all splits hold the same inputs and labels in the same order."""
    first = splits[0]
    return all(
        type(d) is Data
        and d.storage is first.storage
        and same_transform(d.transform, first.transform)
        and torch.equal(d.index, first.index)
        and torch.equal(d.labels, first.labels)
        for d in splits
    )


def sizes(engines: Sequence[Engine], lanes: Sequence[int]) -> dict[int, int]:
    """Return the size of the next batch of some lanes."""
    return {i: engines[i].schedule.size(engines[i].step) for i in lanes}
