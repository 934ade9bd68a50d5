"""The samples of a source in the form batches are read from: padded, on the device, normalised once or per batch."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.errors import ConfigError, expect
from cl.streams.changes import Change
from cl.streams.remote import Remote
from cl.streams.sources.base import Table
from cl.streams.transforms import Augmentation, Normalisation, Pipeline, normalisation

CACHES = ("auto", "on", "off")
CACHE_LIMIT = 1 << 30  # bytes of float inputs that `auto` may keep on an accelerator


class Inputs:
    """Training and test samples on the device; the part of a stream that does not depend on the seed.

    Args:
        table: the source.
        normalise: see `cl.streams.transforms.normalisation`.
        padding: black pixels on each side.
        augmentation: for training batches, or None.
        cache: ``on``, ``off`` or ``auto``; see `cl.streams.stream.TaskStream`.
        device: where samples live.

    Attributes:
        train, test: (N, *input) storage, as stored or as normalised floats.

    Raises:
        ConfigError: an option needs images that fit in memory, and the source has none.
    """

    def __init__(
        self,
        table: Table,
        normalise: str | Mapping[str, Sequence[float]],
        padding: int,
        augmentation: Augmentation | None,
        cache: str,
        device: torch.device,
    ) -> None:
        expect(padding >= 0, "stream.padding", ">= 0", padding)
        expect(cache in CACHES, "stream.cache", f"in {list(CACHES)}", cache)
        image = table.train.x.dim() == 4 and not table.sequence
        for name, asked in (("padding", padding > 0), ("augmentation", augmentation is not None)):
            if asked and not image:
                raise ConfigError(f"Expected `stream.{name}` to be off for samples that are not images")
        self.augmentation, self.peak = augmentation, table.peak
        stored = [_padded(split.x, padding) for split in (table.train, table.test)]
        self._stored, self._normalise = stored, self._normalisation(normalise, table, stored[0])
        self.fill = torch.zeros((), device=device) if self._normalise is None else self._normalise.fill.to(device)
        self._pipelines: dict[bool, Pipeline | None] = {}
        self.train, self.test = (x.to(device) for x in stored)
        self._at_hand: Normalisation | None = None  # what is left to do to every batch
        if self._normalise is None:
            return
        self._at_hand = self._normalise.to(device)
        small = [x for x in (self.train, self.test) if isinstance(x, Tensor)]
        fits = len(small) == 2 and 4 * sum(x.numel() for x in small) <= CACHE_LIMIT
        wanted = cache == "on" or (cache == "auto" and device.type != "cpu" and fits)
        if wanted and augmentation is None and len(small) == 2:
            self.train, self.test = (self._at_hand(x) for x in small)
            self._at_hand = None

    @staticmethod
    def _normalisation(
        spec: str | Mapping[str, Sequence[float]], table: Table, x: Tensor | Remote
    ) -> Normalisation | None:
        """Return the normalisation; None for tokens. Samples on disk are looked at in part."""
        if table.vocabulary:
            return None
        return normalisation(spec, x if isinstance(x, Tensor) else x.sample(), table.peak)

    def pipeline(self, change: Change | None, augment: bool) -> Pipeline | None:
        """Return the transform of a split, or None where there is nothing to do; equal ones are one object."""
        augmentation = self.augmentation if augment else None
        whole = not self.train.dtype.is_floating_point
        if change is not None:
            return Pipeline(self._at_hand, change, self.fill, augmentation, self.peak, whole)
        if augment not in self._pipelines:
            idle = self._at_hand is None and augmentation is None
            made = None if idle else Pipeline(self._at_hand, None, self.fill, augmentation, self.peak, whole)
            self._pipelines[augment] = made
        return self._pipelines[augment]

    @property
    def augmenting(self) -> Pipeline | None:
        """The transform of training samples where it augments and no task changes them, else None."""
        return None if self.augmentation is None else self.pipeline(None, augment=True)

    @cached_property
    def digest(self) -> bytes:
        """A hash of every byte stored (of names and sizes, for samples on disk), the normalisation and augmentation."""
        described = "tokens" if self._normalise is None else self._normalise.describe()
        digest = hashlib.sha256(f"{described} {self.augmentation!r}".encode())
        for x in self._stored:
            digest.update(repr((tuple(x.shape), x.dtype)).encode())
            digest.update(x.contiguous().numpy().data if isinstance(x, Tensor) else x.digest())
        return digest.digest()


def _padded(x: Tensor | Remote, padding: int) -> Tensor | Remote:
    if padding == 0:
        return x
    if isinstance(x, Remote):
        raise ConfigError("Expected `stream.padding` 0 for samples that stay on disk; the source's `size` resizes them")
    return F.pad(x, [padding] * 4)
