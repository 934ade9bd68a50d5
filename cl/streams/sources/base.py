"""What a stream is cut from: a labelled training set and test set, as tensors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cl.errors import DataError
from cl.streams.remote import Remote


@dataclass(frozen=True)
class Samples:
    """One split of a source.

    Attributes:
        x: (N, *input), uint8 kept as uint8; float32; int64 for tokens; or a `Remote` that reads such samples from disk.
        y: (N,) int64 classes; (N, T) int64 for per-step targets; (N, ...) float32 for regression.
        group: (N,) int64, the group each sample belongs to, where it does not follow from the class; else None.
        reach: of windows of a series, in the order of time: how many of a group's next windows share values with one.
    """

    x: Tensor | Remote
    y: Tensor
    group: Tensor | None = None
    reach: int | None = None

    def __post_init__(self) -> None:
        for name, values in (("labels", self.y), ("groups", self.group)):
            if values is not None and len(values) != len(self.x):
                raise DataError(f"Expected as many {name} as samples, got {len(values)} and {len(self.x)}")


@dataclass(frozen=True)
class Table:
    """A source in memory.

    Attributes:
        train: training samples.
        test: test samples.
        class_names: what each class (or output) means: C names.
        groups: classes that belong together (an alphabet, a domain, one of several sources), at most one group a class;
            empty means one group of all. Where samples carry a group of their own, every group holds all classes.
        group_names: one name a group, or empty.
        peak: the stored value that means 1: 255 for images.
        target: ``class``, ``steps`` or ``real``.
        sequence, vocabulary, padded: see `cl.streams.base.StreamInfo`.
        language: see `cl.streams.base.Stream`.
    """

    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] = ()
    group_names: tuple[str, ...] = ()
    peak: float = 255.0
    target: str = "class"
    sequence: bool = False
    vocabulary: int = 0
    padded: bool = False
    language: bool = False

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)


class Source(ABC):
    """A data set. A constructor touches no file; `load` reads, and downloads if it may."""

    @abstractmethod
    def load(self, root: Path, download: bool) -> Table:
        """Return the data.

        Args:
            root: the data folder.
            download: True may fetch missing files.

        Raises:
            DataError: a file is missing, corrupt or cannot be fetched; the text names it and says what to do.
        """


def missing(path: Path, how: str, given: str | None = None) -> DataError:
    """Return the error for a file that is not there.

    Args:
        path: where it was looked for.
        how: what to do.
        given: the path as the user gave it, relative to `data.root`; one that exists from here is told.
    """
    here = Path.cwd() / given if given is not None else path
    found = f" ({here} does, and can be given so)" if here != path and here.exists() else ""
    return DataError(f"Expected the data file {path}, which does not exist{found}; {how}")
