"""Samples of one split of one task, and sets of such samples to train on.

Small data lives as one tensor on the device (uint8 kept as uint8), shared by all tasks that are cut from it; a split is
an index into it, labels, and a transform that is applied a batch at a time. Nothing is copied per task. Data that does
not fit is a `Remote` in the place of the tensor: read ahead by workers, seen through the same methods.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import repeat

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.seeding import derive
from cl.streams.remote import Remote

# A transform takes x (B, *input) as stored, the key of the step or None at test time, and returns the network's input.
Transform = Callable[[Tensor, Tensor | None], Tensor]


class Data:
    """One split of one task.

    Args:
        storage: (N, *input) tensor that may hold more than this split, or a `Remote` of that shape.
        index: (n,) int64, rows of `storage` that belong to the split.
        labels: (n,) int64 output indices, or targets of any shape (n, ...).
        task: index of the task.
        transform: from stored samples to inputs; None gives float32 values as they are (uint8 divided by 255).
    """

    def __init__(
        self, storage: Tensor | Remote, index: Tensor, labels: Tensor, task: int, transform: Transform | None = None
    ) -> None:
        expect(len(index) == len(labels), "labels", f"of the length of index ({len(index)})", len(labels))
        self.storage, self.index, self.labels, self.task = storage, index, labels, task
        self.transform = transform if transform is not None else as_float
        self._task = torch.tensor(task, device=storage.device)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.storage.device

    def inputs(self, positions: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the network's inputs (B, *input) at `positions` (B,) of this split; `key` () draws augmentations."""
        return self.transform(self.storage.index_select(0, self.index.index_select(0, positions)), key)

    @property
    def later(self) -> Transform | None:
        """How samples that were `kept` become inputs; None where they are inputs already.

        A transform that draws from the key says so by an `augmentation` that is not None.
        """
        return self.transform if getattr(self.transform, "augmentation", None) is not None else None

    def kept(self, positions: Tensor) -> Tensor:
        """Return what a memory keeps of the samples at `positions` (B,) to train on them later: (B, *input).

        Where the stream augments, that is what is stored, so that they can be augmented anew; else inputs.
        """
        if self.later is None:
            return self.inputs(positions)
        return self.storage.index_select(0, self.index.index_select(0, positions))

    def batch(self, positions: Tensor, key: Tensor, augment: bool = True) -> Batch:
        """Return the `Batch` at `positions` (B,) for the step with this `key` ()."""
        return self._batch(self.storage.index_select(0, self.index.index_select(0, positions)), positions, key, augment)

    def _batch(self, stored: Tensor, positions: Tensor, key: Tensor, augment: bool) -> Batch:
        """Return the batch at `positions` (B,), whose samples (B, *input) were read already."""
        x = self.transform(stored, key if augment else None)
        raw = stored if self.later is not None else None
        return Batch(x, self.labels.index_select(0, positions), self._task.expand(len(positions)), key, raw)

    def batches(self, positions: Iterable[Tensor], keys: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield one batch for each (positions, key); streamed data reads ahead here."""
        return self._all(positions, keys, augment=True)

    def _all(self, positions: Iterable[Tensor], keys: Iterable[Tensor], augment: bool) -> Iterator[Batch]:
        if isinstance(self.storage, Tensor):
            for where, key in zip(positions, keys, strict=False):
                yield self.batch(where, key, augment)
            return
        ahead: deque[Tensor] = deque()  # positions of the batches that workers are reading

        def rows() -> Iterator[Tensor]:
            for where in positions:
                ahead.append(where)
                yield self.index.index_select(0, where)

        for stored, key in zip(self.storage.read(rows()), keys, strict=False):
            yield self._batch(stored, ahead.popleft(), key, augment)

    def subset(self, positions: Tensor) -> "Data":
        """Return the split restricted to `positions` (n,)."""
        return type(self)(self.storage, self.index[positions], self.labels[positions], self.task, self.transform)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield the whole split once, in stored order and without augmentation."""
        key = torch.zeros((), dtype=torch.long, device=self.device)
        positions = torch.split(torch.arange(len(self), device=self.device), batch_size)
        return self._all(positions, repeat(key), augment=False)


def as_float(x: Tensor, key: Tensor | None = None) -> Tensor:
    """Return x as float32; uint8 is scaled to [0, 1]."""
    if x.dtype == torch.uint8:
        return x.to(torch.float32) / 255
    return x


class Joined(Data):
    """Splits of several tasks that share storage and transform, seen as one: a mixed batch costs what a plain one does.

    Args:
        parts: splits, in order.
        repeats: how many times each occurs.
    """

    def __init__(self, parts: Sequence[Data], repeats: Sequence[int]) -> None:
        first = parts[0]
        copies = [part for part, n in zip(parts, repeats, strict=True) for _ in range(n)]
        index, labels = torch.cat([part.index for part in copies]), torch.cat([part.labels for part in copies])
        super().__init__(first.storage, index, labels, first.task, first.transform)
        self.tasks = torch.cat([torch.full_like(part.index, part.task) for part in copies])

    @staticmethod
    def possible(parts: Sequence[Data]) -> bool:
        """Return True if all parts are plain `Data` of one storage and one transform."""
        return all(
            type(p) is Data and p.storage is parts[0].storage and p.transform is parts[0].transform for p in parts
        )

    def _batch(self, stored: Tensor, positions: Tensor, key: Tensor, augment: bool) -> Batch:
        """Return the batch at `positions` (B,), each sample with the task it comes from."""
        return super()._batch(stored, positions, key, augment)._replace(task=self.tasks.index_select(0, positions))

    def subset(self, positions: Tensor) -> "Joined":
        """Return the samples at `positions` (n,)."""
        made = copy(self)
        made.index, made.labels, made.tasks = (t[positions] for t in (self.index, self.labels, self.tasks))
        return made


class TrainingData:
    """What a strategy trains on at one task: one or several splits seen as one, with repetitions.

    Args:
        parts: splits (also of different tasks), in order.
        repeats: how many times each part occurs in an epoch; default once each.
        tasks: how many tasks' worth of steps this is, when training is counted in steps (joint training takes K).
        batch_scale: factor on the batch size.
        validation: what early stopping looks at; None is the validation split of the task at hand.
    """

    def __init__(
        self,
        parts: Sequence[Data],
        repeats: Sequence[int] | None = None,
        tasks: int = 1,
        batch_scale: int = 1,
        validation: Sequence[Data] | None = None,
    ) -> None:
        counts = list(repeats) if repeats is not None else [1] * len(parts)
        expect(len(counts) == len(parts), "repeats", f"of length {len(parts)}", counts)
        self.parts = [p for p, n in zip(parts, counts, strict=True) if n > 0 and len(p) > 0]
        self.repeats = [n for p, n in zip(parts, counts, strict=True) if n > 0 and len(p) > 0]
        self.tasks, self.batch_scale, self.validation = tasks, batch_scale, validation
        if (len(self.parts) > 1 or self.repeats not in ([], [1])) and Joined.possible(self.parts):
            self.parts, self.repeats = [Joined(self.parts, self.repeats)], [1]
        lengths = [len(p) * n for p, n in zip(self.parts, self.repeats, strict=True)]
        self.starts = torch.tensor([0, *lengths]).cumsum(0).tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batches(self, positions: Iterable[Tensor], keys: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield one batch for each (positions (B,), key ()); positions count through all parts and repeats."""
        if len(self.parts) == 1 and self.repeats == [1]:
            yield from self.parts[0].batches(positions, keys)
            return
        for where, key in zip(positions, keys, strict=False):
            yield self._mixed(where, key)

    def _mixed(self, positions: Tensor, key: Tensor) -> Batch:
        """Gather a batch part by part and put the samples back in the order of `positions`."""
        found: list[Batch] = []
        places: list[Tensor] = []
        for i, part in enumerate(self.parts):
            inside = (positions >= self.starts[i]) & (positions < self.starts[i + 1])
            place = inside.nonzero()[:, 0]
            if len(place) > 0:
                own = key + derive(0, "part", i) if i > 0 else key  # or samples of two parts are augmented alike
                found.append(part.batch((positions[place] - self.starts[i]) % len(part), own))
                places.append(place)
        back = torch.cat(places).argsort()
        x, y, task = (torch.cat([getattr(b, field) for b in found])[back] for field in ("x", "y", "task"))
        raw = [b.stored for b in found if b.stored is not None]
        return Batch(x, y, task, key, torch.cat(raw)[back] if len(raw) == len(found) else None)
