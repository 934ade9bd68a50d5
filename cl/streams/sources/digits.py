"""The handwritten digits that come with scikit-learn: no download."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl.errors import expect
from cl.seeding import generator
from cl.streams.sources.base import Samples, Source, Table


class Digits(Source):
    """1797 real 8 x 8 images of ten digits (Alpaydin and Kaynak 1998), values 0 to 16.

    Args:
        test_fraction: part of each class held out for testing, in (0, 1); the same samples for every seed.
    """

    def __init__(self, test_fraction: float = 0.25) -> None:
        expect(0 < test_fraction < 1, "stream.source.test_fraction", "in (0, 1)", test_fraction)
        self.test_fraction = test_fraction

    def load(self, root: Path, download: bool) -> Table:
        """Return the data."""
        content = _content()
        x = torch.from_numpy(content[:, :-1].astype(np.uint8)).reshape(-1, 1, 8, 8)
        y = torch.from_numpy(content[:, -1].astype(np.int64))
        order = torch.randperm(len(y), generator=generator(0, "digits test"))
        test = torch.zeros(len(y), dtype=torch.bool)
        for c in range(10):
            own = order[y[order] == c]
            test[own[: round(self.test_fraction * len(own))]] = True
        names = tuple(str(c) for c in range(10))
        return Table(Samples(x[~test], y[~test]), Samples(x[test], y[test]), names, peak=16.0)


def _content() -> NDArray[Any]:
    """Return (1797, 65): the pixels and the digit, from scikit-learn's file; importing it takes longer than a run."""
    found = importlib.util.find_spec("sklearn")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    for file in (Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders):
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # a version that keeps it elsewhere

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels])
