"""MNIST and its kin: four files in the idx format, laid out as torchvision lays them out.

torchvision knows where the files are on the net and what their checksums are; it is imported only to fetch them. They
are read here, because reading is a memory map (nothing is copied, and all processes share the pages), while importing
torchvision takes longer than everything else before the first step.
"""

import math
import string
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.errors import DataError, expect
from cl.streams.sources.base import Samples, Source, Table, missing

_TYPES = {8: np.dtype(np.uint8)}  # idx type code -> dtype; MNIST and its kin use bytes alone
_DIGITS = tuple(string.digits)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the array in an idx file of bytes, memory-mapped: uint8 of `dimensions` dimensions.

    Raises:
        DataError: the file is not an idx file of bytes, or is shorter or longer than its header says.
    """
    with path.open("rb") as file:
        header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:2] != b"\0\0" or header[2] not in _TYPES or header[3] != dimensions:
        raise DataError(f"Expected an idx file of bytes with {dimensions} dimensions in {path}; fetch the file again")
    shape = tuple(int(n) for n in np.frombuffer(header, dtype=">u4", offset=4))
    size = len(header) + math.prod(shape)
    if path.stat().st_size != size:
        raise DataError(
            f"Expected {size} bytes in {path}, got {path.stat().st_size}: it is truncated or corrupt; fetch it again"
        )
    return torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", offset=len(header), shape=shape))


class MNIST(Source):
    """Handwritten digits, 60,000 + 10,000 grey images of 28 x 28 (LeCun et al. 1998)."""

    folder: ClassVar[str] = "MNIST"
    names: tuple[str, ...] = _DIGITS

    def files(self, split: str) -> tuple[str, str]:
        """Return the names of the image file and label file of ``train`` or ``t10k``."""
        return f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"

    def load(self, root: Path, download: bool) -> Table:
        """Return the data; raises DataError where a file is missing, truncated or corrupt."""
        raw = root / self.folder / "raw"
        wanted = [name for split in ("train", "t10k") for name in self.files(split)]
        absent = [name for name in wanted if not (raw / name).exists()]
        if absent and download:
            self.fetch(raw)
        elif absent:
            raise missing(raw / absent[0], f"set data.download=true, or put {', '.join(absent)} into {raw} by hand")
        return Table(self._read(raw, "train"), self._read(raw, "t10k"), self.names)

    def _read(self, raw: Path, split: str) -> Samples:
        images, labels = (raw / name for name in self.files(split))
        x, y = read_idx(images, 3), read_idx(labels, 1).long()
        if len(x) != len(y) or int(y.max()) >= len(self.names):
            raise DataError(f"Expected {len(x)} labels below {len(self.names)} in {labels}; fetch the file again")
        return Samples(self.upright(x)[:, None], y)

    def upright(self, x: Tensor) -> Tensor:
        """Return images (N, H, W) the right way up."""
        return x

    def fetch(self, raw: Path) -> None:
        """Download and unpack the files into `raw`."""
        import torchvision

        from cl.streams.fetch import fetch, unpack_gzip

        known = getattr(torchvision.datasets, self.folder)
        for name, md5 in known.resources:
            archive = fetch([mirror + name for mirror in known.mirrors], raw / name, md5)
            unpack_gzip(archive, raw / name.removesuffix(".gz"))


class FashionMNIST(MNIST):
    """Ten kinds of clothing, 60,000 + 10,000 grey images of 28 x 28 (Xiao, Rasul, Vollgraf 2017)."""

    folder = "FashionMNIST"
    names = (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip


class KMNIST(MNIST):
    """Ten cursive Japanese characters, 60,000 + 10,000 grey images of 28 x 28 (Clanuwat et al. 2018)."""

    folder = "KMNIST"
    names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


_MERGED = set("cijklmopsuvwxyz")
_BALANCED = tuple(sorted(set(string.digits + string.ascii_letters) - _MERGED))
EMNIST_NAMES = {
    "balanced": _BALANCED,
    "bymerge": _BALANCED,
    "byclass": tuple(sorted(string.digits + string.ascii_letters)),
    "letters": tuple(string.ascii_lowercase),
    "digits": _DIGITS,
    "mnist": _DIGITS,
}


class EMNIST(MNIST):
    """Handwritten digits and letters, grey images of 28 x 28 (Cohen et al. 2017).

    Args:
        split: one of ``balanced`` (47 classes), ``bymerge`` (47), ``byclass`` (62), ``letters`` (26), ``digits``,
            ``mnist``.
    """

    folder = "EMNIST"

    def __init__(self, split: str = "balanced") -> None:
        expect(split in EMNIST_NAMES, "stream.source.split", f"in {list(EMNIST_NAMES)}", split)
        self.split = split

    def files(self, split: str) -> tuple[str, str]:
        """Return the names of the image file and label file of ``train`` or ``t10k``."""
        stem = f"emnist-{self.split}-{'train' if split == 'train' else 'test'}"
        return f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"

    def load(self, root: Path, download: bool) -> Table:
        """Return the data; letters are counted from 0."""
        self.names = EMNIST_NAMES[self.split] if self.split != "letters" else ("", *EMNIST_NAMES["letters"])
        table = super().load(root, download)
        if self.split != "letters":
            return table
        train, test = (Samples(s.x, s.y - 1) for s in (table.train, table.test))
        return Table(train, test, EMNIST_NAMES["letters"])

    def upright(self, x: Tensor) -> Tensor:
        """Return images (N, H, W) the right way up; the files hold them transposed."""
        return x.transpose(1, 2)

    def fetch(self, raw: Path) -> None:
        """Download the archive of all splits and unpack the files of this one."""
        import torchvision

        from cl.streams.fetch import fetch, unpack_gzip, unpack_zip_member

        known = torchvision.datasets.EMNIST
        archive = fetch([known.url], raw / "gzip.zip", known.md5)
        for name in (*self.files("train"), *self.files("t10k")):
            packed = unpack_zip_member(archive, f"gzip/{name}.gz", raw / f"{name}.gz")
            unpack_gzip(packed, raw / name)
