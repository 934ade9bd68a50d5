"""The handwritten digits that come with scikit-learn: no download."""

from pathlib import Path

import numpy as np
import torch

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
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
        y = torch.from_numpy(labels.astype(np.int64))
        order = torch.randperm(len(y), generator=generator(0, "digits test"))
        test = torch.zeros(len(y), dtype=torch.bool)
        for c in range(10):
            own = order[y[order] == c]
            test[own[: round(self.test_fraction * len(own))]] = True
        names = tuple(str(c) for c in range(10))
        return Table(Samples(x[~test], y[~test]), Samples(x[test], y[test]), names, peak=16.0)
