"""Fixed changes of the input that make a task: a permutation of the pixels, a rotation.

A change acts on a batch of inputs on the device; it stores an index at most, never a changed copy of the data.
"""

import hashlib
import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

INTERPOLATIONS = ("nearest", "bilinear")


class Change(ABC):
    """A fixed function of the input."""

    @abstractmethod
    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return changed inputs, of the shape of x.

        Args:
            x: (B, *input) float32.
            fill: () or (C, 1, 1), the input value of a black pixel, for places that x does not reach.
        """

    @abstractmethod
    def to(self, device: torch.device) -> "Change":
        """Return the change with its tensors on `device`."""

    @abstractmethod
    def describe(self) -> str:
        """Return a text that is equal for equal changes, for the fingerprint."""


class Permutation(Change):
    """Permutes the positions of a sample.

    Args:
        order: (P,) int64; position p of the output is position order[p] of the input.
        first, last: the dimensions of a batch that are permuted as one: 2 and 3 for the pixels of images (B, C, H, W)
            with all channels together, 1 and 2 for the values of sequences (B, T, D), 1 and 1 for their steps.
    """

    def __init__(self, order: Tensor, first: int = 2, last: int = 3) -> None:
        self.order, self.first, self.last = order, first, last

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return permuted inputs (B, *input)."""
        return x.flatten(self.first, self.last).index_select(self.first, self.order).reshape(x.shape)

    def to(self, device: torch.device) -> "Permutation":
        """Return the permutation on `device`."""
        return Permutation(self.order.to(device), self.first, self.last)

    def describe(self) -> str:
        """Return a hash of the order."""
        return f"permutation {self.first} {self.last} {hashlib.sha256(self.order.cpu().numpy().tobytes()).hexdigest()}"


class Rotation(Change):
    """Rotates images about their centre, counter-clockwise; what comes from outside the image is black.

    Nearest-neighbour rotation is one gather by a precomputed index. Bilinear rotation folds the batch into the channels
    of one `grid_sample`, so that the grid is read once a batch.

    Args:
        angle: degrees.
        size: (H, W).
        interpolation: ``nearest`` or ``bilinear``.
    """

    def __init__(self, angle: float, size: tuple[int, int], interpolation: str = "nearest") -> None:
        self.angle, self.size, self.interpolation = float(angle), size, interpolation
        height, width = size
        rows = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
        columns = torch.arange(width, dtype=torch.float64)[None] - (width - 1) / 2
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self.row = (columns * sin + rows * cos + (height - 1) / 2).expand(size)
        self.column = (columns * cos - rows * sin + (width - 1) / 2).expand(size)
        # The tiny shift settles ties (a source exactly between two pixels) the same way at every angle.
        near_row, near_column = (torch.floor(v + 0.5 - 1e-9).long() for v in (self.row, self.column))
        self.inside = (near_row >= 0) & (near_row < height) & (near_column >= 0) & (near_column < width)
        self.index = (near_row.clamp(0, height - 1) * width + near_column.clamp(0, width - 1)).flatten()
        grid = torch.stack([(2 * self.column + 1) / width - 1, (2 * self.row + 1) / height - 1], dim=-1)
        self.grid = grid.float()[None]

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return rotated images (B, C, H, W)."""
        if self.interpolation == "nearest":
            return torch.where(self.inside, x.flatten(2).index_select(2, self.index).reshape(x.shape), fill)
        above = (x - fill).reshape(1, -1, *x.shape[2:])
        turned = F.grid_sample(above, self.grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return turned.reshape(x.shape) + fill

    def to(self, device: torch.device) -> "Rotation":
        """Return the rotation on `device`."""
        moved = Rotation(self.angle, self.size, self.interpolation)
        for name in ("inside", "index", "grid"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def describe(self) -> str:
        """Return the angle and the interpolation."""
        return f"rotation {self.angle!r} {self.size} {self.interpolation}"
