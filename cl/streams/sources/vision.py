"""CIFAR and SVHN, read by torchvision."""

import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch

from cl.errors import DataError
from cl.streams.cache import decoded
from cl.streams.fetch import alone, checksum, fetch
from cl.streams.sources.base import Samples, Source, Table, missing


class CIFAR10(Source):
    """Ten kinds of things, 50,000 + 10,000 colour images of 32 x 32 (Krizhevsky 2009)."""

    folder: ClassVar[str] = "cifar-10-batches-py"
    files: ClassVar[tuple[str, ...]] = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

    def load(self, root: Path, download: bool) -> Table:
        """Return the data; raises DataError where a file is missing or corrupt."""
        paths = [root / self.folder / name for name in self.files]
        absent = [path for path in paths if not path.exists()]
        if absent and download:
            self._fetch(root)
        elif absent:
            raise missing(absent[0], f"set data.download=true, or unpack {self.archive()} into {root} by hand")
        content = decoded(type(self).__name__, [str(root)], paths, lambda: self._decode(root))
        train, test = (Samples(content[f"{part}_x"], content[f"{part}_y"]) for part in ("train", "test"))
        groups = tuple(tuple(g) for g in content["groups"])
        return Table(train, test, tuple(content["class_names"]), groups, tuple(content["group_names"]))

    def _known(self) -> Any:
        import torchvision

        return getattr(torchvision.datasets, type(self).__name__)

    def archive(self) -> str:
        """Return the address of the archive."""
        return str(self._known().url)

    def _fetch(self, root: Path) -> None:
        known = self._known()
        archive = fetch([known.url], root / known.filename, known.tgz_md5)
        with alone(archive):
            known(str(root), download=True)  # finds the archive, whole, and unpacks it

    def _decode(self, root: Path) -> dict[str, Any]:
        known = self._known()
        listed = [*known.train_list, *known.test_list, [known.meta["filename"], known.meta["md5"]]]
        for name, md5 in listed:
            path = root / self.folder / name
            if checksum(path) != md5:
                raise DataError(f"Expected md5 {md5} of {path}, got another: it is corrupt; fetch it again")
        content: dict[str, Any] = {}
        for part in ("train", "test"):
            data = known(str(root), train=part == "train")
            content[f"{part}_x"] = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
            content[f"{part}_y"] = torch.tensor(data.targets)
            content["class_names"] = list(data.classes)
        return content | self.grouping(root)

    def grouping(self, root: Path) -> dict[str, Any]:
        """Return groups of classes and their names."""
        return {"groups": [], "group_names": []}


class CIFAR100(CIFAR10):
    """A hundred kinds of things in twenty groups, 50,000 + 10,000 colour images of 32 x 32 (Krizhevsky 2009)."""

    folder = "cifar-100-python"
    files = ("train", "test", "meta")

    def grouping(self, root: Path) -> dict[str, Any]:
        """Return the twenty superclasses."""
        folder = root / self.folder
        with (folder / "test").open("rb") as file:  # its checksum was right
            entry = pickle.load(file, encoding="latin1")
        with (folder / "meta").open("rb") as file:
            names = pickle.load(file, encoding="latin1")["coarse_label_names"]
        owner = dict(zip(entry["fine_labels"], entry["coarse_labels"], strict=True))
        groups = [[c for c in range(len(owner)) if owner[c] == g] for g in range(len(names))]
        return {"groups": groups, "group_names": list(names)}


class SVHN(Source):
    """House numbers in the street, 73,257 + 26,032 colour images of 32 x 32 (Netzer et al. 2011)."""

    def load(self, root: Path, download: bool) -> Table:
        """Return the data; raises DataError where a file is missing or corrupt."""
        names = ("train_32x32.mat", "test_32x32.mat")
        absent = [name for name in names if not (root / name).exists()]
        if absent and not download:
            place = "http://ufldl.stanford.edu/housenumbers/"
            raise missing(root / absent[0], f"set data.download=true, or fetch {', '.join(absent)} from {place}")
        if absent:
            from torchvision.datasets import SVHN as known

            for part in ("train", "test"):
                url, name, md5 = known.split_list[part]
                fetch([url], root / name, md5)
        content = decoded("SVHN", [str(root)], [root / name for name in names], lambda: self._decode(root))
        train, test = (Samples(content[f"{part}_x"], content[f"{part}_y"]) for part in ("train", "test"))
        return Table(train, test, tuple(str(d) for d in range(10)))

    def _decode(self, root: Path) -> dict[str, Any]:
        from torchvision.datasets import SVHN as known

        content: dict[str, Any] = {}
        for part in ("train", "test"):
            _, name, md5 = known.split_list[part]
            if checksum(root / name) != md5:
                raise DataError(f"Expected md5 {md5} of {root / name}, got another: it is corrupt; fetch it again")
            data = known(str(root), split=part)
            content[f"{part}_x"] = torch.from_numpy(data.data).contiguous()
            content[f"{part}_y"] = torch.from_numpy(data.labels).long()
        return content
