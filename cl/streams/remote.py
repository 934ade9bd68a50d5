"""Samples that stay on disk: decoded by workers that are kept alive, behind the face of a tensor."""

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cl.errors import DataError, expect
from cl.seeding import generator


class Items(Protocol):
    """A map-style data set of tensors of one shape."""

    def __len__(self) -> int:
        """Return the number of samples N."""

    def __getitem__(self, i: int) -> Tensor:
        """Return sample i: (*input)."""


class _Stacks(Dataset[Tensor]):
    """Hands a whole batch to a worker at once, which stacks it: one message a batch."""

    def __init__(self, items: Items) -> None:
        self.items = items

    def __getitem__(self, rows: list[int]) -> Tensor:
        return torch.stack([self.items[i] for i in rows])


class _Order:
    """The batches of rows that a loader reads next."""

    def __init__(self) -> None:
        self.rows: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.rows)


class _Reader:
    """One set of workers; it serves one reading at a time."""

    def __init__(self, items: Items, workers: int, prefetch: int, pin: bool) -> None:
        self.busy = False
        self.order = _Order()
        ahead: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": prefetch} if workers > 0 else {}
        # batch_size=None hands each element of the sampler, a whole batch of rows, to the data set as it is. The
        # loader draws a seed for its workers; from a generator of its own, so that the global one is not touched.
        self.loader: DataLoader[Tensor] = DataLoader(
            _Stacks(items),
            batch_size=None,
            sampler=self.order,
            num_workers=workers,
            pin_memory=pin,
            generator=generator(0, "loader"),
            **ahead,
        )

    def read(self, rows: Iterable[list[int]]) -> Generator[Tensor, None, None]:
        self.busy, self.order.rows = True, rows
        try:
            yield from self.loader
        finally:
            self.busy = False


class Remote:
    """What `cl.streams.data.Data` may hold instead of a tensor: N samples that are read when they are needed.

    Args:
        items: the samples; must be picklable.
        workers: processes that decode; 0 decodes in this process.
        prefetch: batches that each worker reads ahead.
        content: names what the samples are, for the fingerprint: equal contents, equal texts.
        device: where batches are wanted.
    """

    def __init__(
        self,
        items: Items,
        workers: int,
        prefetch: int,
        content: Callable[[], bytes],
        device: torch.device | str = "cpu",
    ) -> None:
        expect(workers >= 0, "stream.source.workers", ">= 0", workers)
        expect(prefetch > 0, "stream.source.prefetch", "> 0", prefetch)
        self.items, self.workers, self.prefetch, self.content = items, workers, prefetch, content
        self.device = torch.device(device)
        first = items[0]
        self.shape, self.dtype = torch.Size((len(items), *first.shape)), first.dtype
        self._readers: list[_Reader] = []

    def __len__(self) -> int:
        return len(self.items)

    def dim(self) -> int:
        """Return the number of dimensions, that of samples included."""
        return len(self.shape)

    def to(self, device: torch.device) -> "Remote":
        """Return the same samples, delivered to `device`; the workers are not shared."""
        return Remote(self.items, self.workers, self.prefetch, self.content, device)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Return samples (B, *input) at once, decoded in this process; `dim` is 0."""
        return torch.stack([self.items[i] for i in rows.tolist()]).to(self.device)

    def read(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield one (B, *input) for each rows (B,), read ahead by workers and copied without waiting.

        Readings may be nested (an evaluation inside an epoch): each that runs at the same time has workers of its own,
        which are kept for the next.
        """
        reader = next((r for r in self._readers if not r.busy), None)
        if reader is None:
            reader = _Reader(self.items, self.workers, self.prefetch, self.device.type == "cuda")
            self._readers.append(reader)
        with contextlib.closing(reader.read(r.tolist() for r in rows)) as stacks:
            try:
                for stack in stacks:
                    yield stack.to(self.device, non_blocking=True)
            except DataError as error:  # from a worker it comes with the worker's trace: its last line is the message
                raise DataError(str(error).strip().splitlines()[-1].removeprefix("cl.errors.DataError: ")) from error

    def sample(self, n: int = 4096) -> Tensor:
        """Return up to n samples, evenly spaced, for statistics."""
        rows = torch.linspace(0, len(self) - 1, min(n, len(self))).round().long()
        return torch.stack([self.items[i] for i in rows.tolist()])

    def digest(self) -> bytes:
        """Return a hash of `content`."""
        return hashlib.sha256(self.content()).digest()
