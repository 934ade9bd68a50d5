"""Images read as sequences."""

from pathlib import Path

from torch import Tensor

from cl.errors import ConfigError, expect
from cl.streams.remote import Remote
from cl.streams.sources.base import Samples, Source, Table

READINGS = ("rows", "pixels")


class AsSequence(Source):
    """An image source read row by row or pixel by pixel, from top left (Le, Jaitly, Hinton 2015).

    Args:
        source: images (N, C, H, W) in memory.
        by: ``rows`` gives H steps of C * W features, ``pixels`` gives H * W steps of C features.
    """

    def __init__(self, source: Source, by: str = "rows") -> None:
        expect(by in READINGS, "stream.source.by", f"in {list(READINGS)}", by)
        self.source, self.by = source, by

    def load(self, root: Path, download: bool) -> Table:
        """Return the data; for grey images a view, nothing is copied."""
        table = self.source.load(root, download)
        train, test = (Samples(self._read(s.x), s.y, s.group) for s in (table.train, table.test))
        return Table(
            train, test, table.class_names, table.groups, table.group_names, table.peak, table.target, sequence=True
        )

    def _read(self, x: Tensor | Remote) -> Tensor:
        if isinstance(x, Remote) or x.dim() != 4:
            raise ConfigError(f"Expected images in memory in `stream.source.source`, got samples {tuple(x.shape[1:])}")
        if self.by == "pixels":
            return x.flatten(2).transpose(1, 2)
        return x.transpose(1, 2).flatten(2)
