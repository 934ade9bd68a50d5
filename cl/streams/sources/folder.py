"""Folders and zip archives of images; Omniglot."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cl.errors import ConfigError, DataError, expect
from cl.seeding import generator
from cl.streams.cache import decoded
from cl.streams.fetch import fetch
from cl.streams.remote import Remote
from cl.streams.sources.base import Samples, Source, Table, missing
from cl.streams.sources.files import ImageFiles, listing


class ImageFolder(Source):
    """Images sorted into folders by class, in a folder or a zip archive.

    They are decoded once and kept as one uint8 tensor, or, where they do not fit, decoded by workers when needed.

    The layout is ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` of which a part is held out for testing;
    with `groups`, ``<group>/<class>/*``. Folders above these do not matter.

    Args:
        path: folder or archive, absolute or relative to the data folder; or several.
        channels: 1 (grey) or 3 (colour).
        size: side in pixels after resizing the shorter side and cutting the centre; None keeps the stored size.
        test_fraction: part of each class held out, in (0, 1), the same for every seed; not used where there are folders
            ``train`` and ``test``.
        groups: True if folders of classes lie in folders of groups (alphabets, domains).
        invert: True swaps black and white.
        in_memory: False leaves the images on disk; `size` must be given.
        workers: processes that decode, where images stay on disk.
        prefetch: batches that each of them reads ahead.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        channels: int = 3,
        size: int | None = None,
        test_fraction: float = 0.2,
        groups: bool = False,
        invert: bool = False,
        in_memory: bool = True,
        workers: int = 2,
        prefetch: int = 4,
    ) -> None:
        if not in_memory and size is None:
            raise ConfigError("Expected `stream.source.size` to be given where `in_memory` is false, got null")
        expect(channels in (1, 3), "stream.source.channels", "1 or 3", channels)
        expect(size is None or size > 0, "stream.source.size", "> 0", size)
        expect(0 < test_fraction < 1, "stream.source.test_fraction", "in (0, 1)", test_fraction)
        expect(len(path) > 0, "stream.source.path", "one path or more", path)
        self.paths = [path] if isinstance(path, str) else [str(p) for p in path]
        self.channels, self.size, self.test_fraction = channels, size, test_fraction
        self.groups, self.invert = groups, invert
        self.in_memory, self.workers, self.prefetch = in_memory, workers, prefetch

    def load(self, root: Path, download: bool) -> Table:
        """Return the data, decoded once and cached."""
        places = [root / Path(p).expanduser() for p in self.paths]
        for place, given in zip(places, self.paths, strict=True):
            if not place.exists():
                how = "give the path of a folder of images or of a zip archive in `stream.source.path`"
                raise missing(place, how, given)
        if not self.in_memory:
            return self._remote(places)
        spec = (self.channels, self.size, self.test_fraction, self.groups, self.invert, [str(p) for p in places])
        stamped = [file for place in places for file in ([place] if place.is_file() else [place, *_below(place)])]
        content = decoded(places[0].stem, spec, stamped, lambda: self._decode(places))
        names, groups = tuple(content["class_names"]), tuple(tuple(g) for g in content["groups"])
        train = Samples(content["train_x"], content["train_y"])
        test = Samples(content["test_x"], content["test_y"])
        return Table(train, test, names, groups, tuple(content["group_names"]))

    def _decode(self, places: list[Path]) -> dict[str, Any]:
        found = self.found(places)
        split, label, names, groups = self._sort([name.split("/") for _, name in found])
        files = ImageFiles([p for p, _ in found], [n for _, n in found], self.channels, self.size, self.invert)
        content: dict[str, Any] = {"class_names": names, "groups": list(groups.values()), "group_names": list(groups)}
        for part in ("train", "test"):
            rows = _interleaved([i for i, s in enumerate(split) if s == part], label)
            content[f"{part}_x"] = files.stacked(rows)
            content[f"{part}_y"] = torch.tensor([label[i] for i in rows])
        return content

    def _remote(self, places: list[Path]) -> Table:
        """Return the data with images left on disk."""
        found = self.found(places)
        split, label, names, groups = self._sort([name.split("/") for _, name in found])
        parts: dict[str, Samples] = {}
        for part in ("train", "test"):
            rows = _interleaved([i for i, s in enumerate(split) if s == part], label)
            own = [found[i] for i in rows]
            files = ImageFiles([p for p, _ in own], [n for _, n in own], self.channels, self.size, self.invert)
            x = Remote(files, self.workers, self.prefetch, files.content)
            parts[part] = Samples(x, torch.tensor([label[i] for i in rows]))
        members = tuple(tuple(g) for g in groups.values())
        return Table(parts["train"], parts["test"], tuple(names), members, tuple(groups))

    def found(self, places: list[Path]) -> list[tuple[Path, str]]:
        """Return (place, path inside it) of every image file."""
        return [(place, name) for place in places for name in listing(place)]

    def _sort(self, paths: list[list[str]]) -> tuple[list[str], list[int], list[str], dict[str, list[int]]]:
        """Return the split and the class of each file, the names of classes, and the classes of each group."""
        depth = 3 if self.groups else 2
        given = all(len(p) > depth and p[-depth - 1] in ("train", "test") for p in paths)
        where = ", ".join(self.paths)
        if any(len(p) < depth for p in paths):
            raise DataError(f"Expected images as {'<group>/' if self.groups else ''}<class>/<file> in {where}")
        owners = [tuple(p[-depth:-1]) for p in paths]
        classes = sorted(set(owners))
        place = {c: i for i, c in enumerate(classes)}
        label = [place[o] for o in owners]
        groups: dict[str, list[int]] = {}
        if self.groups:
            for c, owner in enumerate(classes):
                groups.setdefault(owner[0], []).append(c)
        split = [p[-depth - 1] for p in paths] if given else self._held_out(label)
        for part in ("train", "test"):
            counts = Counter(c for c, s in zip(label, split, strict=True) if s == part)
            empty = [classes[c] for c in range(len(classes)) if counts[c] == 0]
            if empty:
                raise DataError(f"Expected {part} images of every class in {where}, got none of {'/'.join(empty[0])}")
        return split, label, ["/".join(c) for c in classes], groups

    def _held_out(self, label: list[int]) -> list[str]:
        labels = torch.tensor(label)
        split = ["train"] * len(label)
        for c in range(int(labels.max()) + 1):
            own = (labels == c).nonzero()[:, 0]
            drawn = own[torch.randperm(len(own), generator=generator(0, "folder test", c))]
            for i in drawn[: max(1, round(self.test_fraction * len(own)))].tolist():
                split[i] = "test"
        return split


def _interleaved(rows: list[int], label: list[int]) -> list[int]:
    """Return rows with classes in turn, so that the first n of a task are of all its classes."""
    seen: Counter[int] = Counter()
    turn: dict[int, int] = {}
    for i in rows:
        turn[i] = seen[label[i]]
        seen[label[i]] += 1
    return sorted(rows, key=lambda i: (turn[i], label[i]))


def _below(place: Path) -> list[Path]:
    """Return all that is inside a folder: a folder changes its time when a file comes or goes, a file by itself."""
    return sorted(place.rglob("*"))


class Omniglot(ImageFolder):
    """Handwritten characters of many alphabets, 20 drawings each (Lake, Salakhutdinov, Tenenbaum 2015).

    Alphabets are groups and characters classes. White strokes on black, as in MNIST.

    Args:
        sets: of ``background`` (30 alphabets), ``evaluation`` (20), ``background_small1`` (5) and ``background_small2``
            (5).
        size: side in pixels.
        test_fraction: part of each character's drawings held out for testing, the same for every seed.
    """

    def __init__(
        self,
        sets: Sequence[str] = ("background_small1", "background_small2"),
        size: int = 28,
        test_fraction: float = 0.25,
    ) -> None:
        known = list(_OMNIGLOT)
        expect(len(sets) > 0 and all(s in known for s in sets), "stream.source.sets", f"in {known}", list(sets))
        self.sets = list(sets)
        paths = [f"omniglot_{s}.zip" for s in self.sets]
        super().__init__(paths, 1, size, test_fraction, groups=True, invert=True)

    def found(self, places: list[Path]) -> list[tuple[Path, str]]:
        """Return every drawing once: the small sets share alphabets."""
        return list({tuple(name.split("/")[-3:]): (place, name) for place, name in super().found(places)}.values())

    def load(self, root: Path, download: bool) -> Table:
        """Return the data; missing archives are fetched if `download`."""
        for name in self.sets:
            archive = root / f"omniglot_{name}.zip"
            url = f"https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_{name}.zip"
            if not archive.exists() and download:
                fetch([url], archive, _OMNIGLOT[name])
            elif not archive.exists():
                raise missing(archive, f"set data.download=true, or fetch it from {url}")
        return super().load(root, download)


_OMNIGLOT = {  # md5 of the archives
    "background": "68d2efa1b9178cc56df9314c21c6e718",
    "evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
    "background_small1": "e704a628b5459e08445c13499850abc4",
    "background_small2": "b75a71a51d3b13f821f212756fe481fd",
}
