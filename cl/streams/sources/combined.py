"""Several sources as one, and any map-style data set of PyTorch as a source."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cl.errors import ConfigError, expect
from cl.streams.remote import Remote
from cl.streams.sources.base import Samples, Source, Table

FITS = ("resize", "pad")


class Several(Source):
    """Several image sources as one, each a group of classes: for `cl.streams.constructions.Sequence`.

    Args:
        sources: the sources, in order.
        names: a name for each, for reports.
        size: side in pixels that all images are brought to; None where they have one size already.
        channels: 1 (grey, by luma) or 3 (grey images three times); None where they have one number already.
        fit: how: ``resize`` (bilinear, antialiased) or ``pad`` (with black; no image may be larger).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        names: Sequence[str] | None = None,
        size: int | None = None,
        channels: int | None = None,
        fit: str = "resize",
    ) -> None:
        expect(len(sources) > 0, "stream.source.sources", "a list of sources", list(sources))
        own = [type(s).__name__ for s in sources] if names is None else [str(n) for n in names]
        expect(len(own) == len(sources), "stream.source.names", f"of length {len(sources)}", own)
        expect(len(set(own)) == len(own), "stream.source.names", "different from each other", own)
        expect(size is None or size > 0, "stream.source.size", "> 0", size)
        expect(channels in (None, 1, 3), "stream.source.channels", "1, 3 or null", channels)
        expect(fit in FITS, "stream.source.fit", f"in {list(FITS)}", fit)
        self.sources, self.names = list(sources), own
        self.size, self.channels, self.fit = size, channels, fit

    def load(self, root: Path, download: bool) -> Table:
        """Return all samples in one table; class c of source i is class (classes before) + c."""
        tables = [source.load(root, download) for source in self.sources]
        for name, table in zip(self.names, tables, strict=True):
            images = table.train.x.dim() == 4 and table.train.x.dtype == torch.uint8
            if table.target != "class" or not images or isinstance(table.train.x, Remote):
                raise ConfigError(
                    f"Expected uint8 images in memory with class labels in `stream.source.sources`, got {name}"
                )
        starts = [sum(t.n_classes for t in tables[:i]) for i in range(len(tables))]
        fitted = [[self._fitted(s.x, t.peak) for s in (t.train, t.test)] for t in tables]
        shapes = {tuple(x.shape[1:]) for pair in fitted for x in pair}
        if len(shapes) > 1:
            raise ConfigError(
                "Expected `stream.source.size` and `stream.source.channels` to be given where sources differ in shape, "
                f"got shapes {sorted(shapes)}"
            )
        train, test = (
            Samples(
                torch.cat([pair[i] for pair in fitted]),
                torch.cat([s.y + start for s, start in zip(split, starts, strict=True)]),
            )
            for i, split in enumerate(([t.train for t in tables], [t.test for t in tables]))
        )
        groups = tuple(tuple(range(start, start + t.n_classes)) for start, t in zip(starts, tables, strict=True))
        names = tuple(f"{name}: {c}" for name, t in zip(self.names, tables, strict=True) for c in t.class_names)
        return Table(train, test, names, groups, tuple(self.names))

    def _fitted(self, x: Tensor | Remote, peak: float) -> Tensor:
        """Bring images (N, C, H, W) to the common size, channels and range 0 to 255."""
        assert isinstance(x, Tensor)  # checked by `load`
        if peak != 255:
            x = (x.float() * (255 / peak)).round().to(torch.uint8)
        if self.channels == 1 and x.shape[1] == 3:
            weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
            greys = ((part * weights).sum(1, keepdim=True).round().to(torch.uint8) for part in torch.split(x, 4096))
            x = torch.cat(list(greys))
        if self.size is not None and tuple(x.shape[2:]) != (self.size, self.size):
            x = self._padded(x, self.size) if self.fit == "pad" else _resized(x, self.size)
        return x.expand(-1, 3, -1, -1) if self.channels == 3 and x.shape[1] == 1 else x

    def _padded(self, x: Tensor, size: int) -> Tensor:
        height, width = x.shape[2:]
        expect(max(height, width) <= size, "stream.source.size", f">= {max(height, width)} to pad", size)
        left, top = (size - width) // 2, (size - height) // 2
        return F.pad(x, [left, size - width - left, top, size - height - top])


def _resized(x: Tensor, size: int) -> Tensor:
    """Resize uint8 images (N, C, H, W) to size x size."""
    parts = (
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
        for part in torch.split(x, 4096)
    )
    return torch.cat(list(parts))


class Wrapped(Source):
    """Any map-style data sets of (input, label) pairs, read once into memory or left where they are.

    Inputs may be PIL images, arrays (H, W, C) of uint8, or tensors of one shape.

    Args:
        train: the training data set.
        test: the test data set.
        class_names: what each label means, or None for numbers.
        in_memory: False reads samples when they are needed. The labels are read at once, from the data set's `targets`
            or `labels` where it has one of them.
        workers: processes that read, where samples are not in memory.
        prefetch: batches that each of them reads ahead.
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        class_names: Sequence[str] | None = None,
        in_memory: bool = True,
        workers: int = 2,
        prefetch: int = 4,
    ) -> None:
        for name, data in (("train", train), ("test", test)):
            rule = "a map-style data set with __len__ and __getitem__"
            expect(hasattr(data, "__len__") and hasattr(data, "__getitem__"), f"stream.source.{name}", rule, data)
        self.train, self.test, self.class_names = train, test, class_names
        self.in_memory, self.workers, self.prefetch = in_memory, workers, prefetch

    def load(self, root: Path, download: bool) -> Table:
        """Return the data."""
        train, test = (self._samples(data) for data in (self.train, self.test))
        count = int(torch.cat([train.y, test.y]).max()) + 1
        names = self.class_names if self.class_names is not None else [str(c) for c in range(count)]
        rule = f"of length {count} or more, one a label"
        expect(len(names) >= count, "stream.source.class_names", rule, list(names))
        return Table(train, test, tuple(names), peak=255.0 if train.x.dtype == torch.uint8 else 1.0)

    def _samples(self, data: Any) -> Samples:
        if self.in_memory:
            return _stacked(data[i] for i in range(len(data)))
        known = getattr(data, "targets", getattr(data, "labels", None))
        transform = getattr(data, "target_transform", None)
        if known is not None and transform is not None:  # torchvision's data sets keep their labels as stored
            known = [int(transform(int(label))) for label in known]
        y = torch.as_tensor([int(data[i][1]) for i in range(len(data))] if known is None else known).long()
        items = _InputsOf(data)
        return Samples(Remote(items, self.workers, self.prefetch, items.content), y)


class _InputsOf:
    """The inputs of a data set of pairs, as tensors."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Tensor:
        return as_tensor(self.data[i][0])

    def content(self) -> bytes:
        """Return the class of the data set, its length and 32 of its samples."""
        n = len(self.data)
        some = [self[i * n // 32].numpy().tobytes() for i in range(32)]
        return b"".join([f"{type(self.data).__qualname__} {n}".encode(), *some])


def _stacked(items: Iterable[tuple[Any, Any]]) -> Samples:
    xs, ys = zip(*((as_tensor(x), int(y)) for x, y in items), strict=True)
    return Samples(torch.stack(xs), torch.tensor(ys))


def as_tensor(x: Any) -> Tensor:
    """Return a PIL image or array as a tensor, (C, H, W) uint8 for images; other tensors as they are."""
    if isinstance(x, Tensor):
        return x if x.dtype in (torch.uint8, torch.int64) else x.float()
    array = np.asarray(x)
    if array.dtype != np.uint8:
        return torch.from_numpy(array.astype(np.float32))
    pixels = torch.from_numpy(array.copy())
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()
