"""Corruptions of images that make a task: fixed functions of the image, in strengths from 1 to 5.

After Hendrycks and Dietterich 2019 (Benchmarking neural network robustness to common corruptions and perturbations);
those of their corruptions that need no random numbers, so that a test image is always the same image.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.errors import expect
from cl.streams.changes import Change


class Corruption(Change):
    """Base of all corruptions; values are read on the scale from `fill` (black) up.

    Args:
        severity: strength, 1 to 5.
    """

    strengths: ClassVar[tuple[float, ...]]

    def __init__(self, severity: int) -> None:
        expect(1 <= severity <= 5, "stream.construction.severity", "in 1 to 5", severity)
        self.severity = severity
        self.strength = self.strengths[severity - 1]

    def to(self, device: torch.device) -> "Corruption":
        """Return the corruption itself: it holds no tensors."""
        return self

    def describe(self) -> str:
        """Return its name and strength."""
        return f"{type(self).__name__} {self.severity}"


class Blur(Corruption):
    """Gaussian blur; the strength is its standard deviation in pixels of a 32 x 32 image."""

    strengths = (0.5, 0.75, 1.0, 1.5, 2.0)

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return blurred images (B, C, H, W)."""
        sigma = self.strength * x.shape[-1] / 32
        reach = math.ceil(3 * sigma)
        place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (place / sigma) ** 2)
        kernel = kernel / kernel.sum()
        flat = (x - fill).reshape(-1, 1, *x.shape[2:])
        flat = F.conv2d(F.conv2d(flat, kernel[None, None, None], padding=(0, reach)), kernel[None, None, :, None],
                        padding=(reach, 0))  # fmt: skip
        return flat.reshape(x.shape) + fill


class Contrast(Corruption):
    """Less contrast about each image's mean; the strength is the factor that is left."""

    strengths = (0.75, 0.5, 0.4, 0.3, 0.15)

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return flatter images (B, C, H, W)."""
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (x - mean) * self.strength


class Pixelate(Corruption):
    """Coarser pixels; the strength is the fraction of rows and columns that is left."""

    strengths = (0.6, 0.5, 0.4, 0.3, 0.25)

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return coarser images (B, C, H, W)."""
        small = [max(1, round(n * self.strength)) for n in x.shape[2:]]
        return F.interpolate(F.interpolate(x, small, mode="area"), tuple(x.shape[2:]), mode="nearest-exact")


class Occlude(Corruption):
    """A black square in the middle; the strength is its side as a fraction of the image's."""

    strengths = (0.2, 0.3, 0.4, 0.5, 0.6)

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return images (B, C, H, W) with a hole."""
        inside = []
        for n in x.shape[2:]:
            width = max(1, round(n * self.strength))
            first = (n - width) // 2
            place = torch.arange(n, device=x.device)
            inside.append((place >= first) & (place < first + width))
        return torch.where(inside[0][:, None] & inside[1], fill, x)


class Stripes(Corruption):
    """Black rows; every n-th row is kept black, n given by the strength."""

    strengths = (8, 6, 4, 3, 2)

    def __call__(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return striped images (B, C, H, W)."""
        rows = torch.arange(x.shape[2], device=x.device) % int(self.strength) == 0
        return torch.where(rows[:, None], fill, x)


CORRUPTIONS: dict[str, type[Corruption]] = {
    "blur": Blur,
    "contrast": Contrast,
    "pixelate": Pixelate,
    "occlude": Occlude,
    "stripes": Stripes,
}
