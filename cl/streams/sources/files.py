"""Image files in a folder or a zip archive, read one by one: what is decoded once, or by the workers of a loader."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cl.errors import ConfigError, DataError
from cl.streams.fetch import open_zip
from cl.streams.sources.base import missing

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def listing(place: Path) -> list[str]:
    """Return the paths of all image files inside a folder or a zip archive, sorted.

    Raises:
        DataError: there is no such folder or archive, the archive is damaged or not safe, or it holds no image.
    """
    if place.is_dir():
        found = [
            (Path(folder) / name).relative_to(place).as_posix() for folder, _, names in os.walk(place) for name in names
        ]
    elif place.exists():
        with open_zip(place) as archive:
            found = [name for name in archive.namelist() if not name.endswith("/")]
    else:
        raise missing(place, "give the path of a folder of images or of a zip archive")
    images = sorted(name for name in found if name.lower().endswith(SUFFIXES) and "__MACOSX" not in name)
    if not images:
        raise DataError(f"Expected image files ({', '.join(SUFFIXES)}) in {place}, got none")
    return images


class ImageFiles:
    """A map-style data set of decoded images: item i is a (C, H, W) uint8 tensor.

    Args:
        places: the folder or archive of each file.
        names: the path of each file inside its place.
        channels: 1 (grey) or 3 (colour).
        size: side in pixels after resizing the shorter side and cutting the centre; None keeps the stored size.
        invert: True swaps black and white.
    """

    def __init__(
        self, places: list[Path], names: list[str], channels: int, size: int | None, invert: bool = False
    ) -> None:
        self.places, self.names = places, names
        self.channels, self.size, self.invert = channels, size, invert
        self._archives: dict[tuple[int, Path], zipfile.ZipFile] = {}  # one handle a process: workers share no position

    def __getstate__(self) -> dict[str, object]:
        """Leave open handles out of what is sent to a worker."""
        return {**self.__dict__, "_archives": {}}

    def __len__(self) -> int:
        return len(self.names)

    def raw(self, i: int) -> bytes:
        """Return the bytes of file i."""
        place, name = self.places[i], self.names[i]
        if place.is_dir():
            return (place / name).read_bytes()
        handle = (os.getpid(), place)
        if handle not in self._archives:
            self._archives[handle] = open_zip(place)
        return self._archives[handle].read(name)

    def __getitem__(self, i: int) -> Tensor:
        """Return image i.

        Raises:
            DataError: the file is corrupt.
        """
        from PIL import Image, ImageOps

        where = f"{self.places[i]}: {self.names[i]}"
        try:
            with Image.open(io.BytesIO(self.raw(i))) as opened:
                if opened.mode.startswith("I"):  # 16 bits a pixel, of which Pillow would keep what is below 256
                    opened = Image.fromarray((np.asarray(opened).clip(0, 65535) // 257).astype(np.uint8))
                image = opened.convert("L" if self.channels == 1 else "RGB")
        except (OSError, zipfile.BadZipFile, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"Expected an image in {where}, got {error}") from error
        if self.size is not None and image.size != (self.size, self.size):
            image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.array(image)
        x = torch.from_numpy(255 - pixels if self.invert else pixels)
        return x[None] if x.dim() == 2 else x.permute(2, 0, 1).contiguous()

    def content(self) -> bytes:
        """Return a text of all paths with their sizes (and checksums, where an archive knows them)."""
        facts: dict[Path, dict[str, tuple[int, int]]] = {}
        for place in set(self.places):
            if not place.is_dir():
                with open_zip(place) as archive:
                    facts[place] = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
        lines = [
            f"{name} {facts[place][name] if place in facts else (place / name).stat().st_size}"
            for place, name in zip(self.places, self.names, strict=True)
        ]
        return "\n".join(lines).encode()

    def stacked(self, rows: list[int]) -> Tensor:
        """Return images (n, C, H, W) of these rows, all of one size."""
        first = self[rows[0]]
        out = torch.empty(len(rows), *first.shape, dtype=torch.uint8)
        for place, i in enumerate(rows):
            image = self[i]
            if image.shape != first.shape:
                raise ConfigError(
                    f"Expected `stream.source.size` to be given where images differ in size, got null; "
                    f"{self.names[rows[0]]} is {tuple(first.shape[1:])} and {self.names[i]} {tuple(image.shape[1:])}"
                )
            out[place] = image
        return out
