"""From stored samples to inputs: augmentation (training only), normalisation, the task's change; a batch at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.build import check_type
from cl.errors import ConfigError, expect
from cl.seeding import integers, uniform
from cl.streams.changes import Change

NORMALISE = ("none", "unit", "standard")


class Normalisation:
    """x -> x * scale + shift, in float32.

    Args:
        scale: factor for each channel: (1,) or (C,).
        shift: added for each channel: (1,) or (C,).
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        self.scale, self.shift = scale, shift
        self.plain = len(scale) == 1 and len(shift) == 1
        # Plain numbers avoid a broadcast, and a shift of zero is not added at all.
        self._scale: Any = float(scale) if self.plain else scale.reshape(-1, 1, 1)
        self._shift: Any = float(shift) if self.plain else shift.reshape(-1, 1, 1)

    @property
    def fill(self) -> Tensor:
        """The input value of a stored 0: () or (C, 1, 1)."""
        return self.shift.reshape(()) if self.plain else self.shift.reshape(-1, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return float inputs of the shape of x."""
        out = x.to(torch.float32, copy=True)
        if not (self.plain and self._scale == 1.0):
            out.mul_(self._scale)
        return out if self.plain and self._shift == 0.0 else out.add_(self._shift)

    def inverse(self, x: Tensor) -> Tensor:
        """Return the stored values of inputs x, up to rounding, as floats of the shape of x."""
        stored: Tensor = (x - self._shift) / self._scale
        return stored

    def to(self, device: torch.device) -> "Normalisation":
        """Return the normalisation on `device`."""
        return Normalisation(self.scale.to(device), self.shift.to(device))

    def describe(self) -> str:
        """Return the numbers."""
        return f"normalise {self.scale.tolist()} {self.shift.tolist()}"


def normalisation(spec: str | Mapping[str, Sequence[float]], x: Tensor, peak: float) -> Normalisation:
    """Return the normalisation a stream asks for.

    Args:
        spec: ``none`` (stored values), ``unit`` (0 to 1), ``standard`` (mean 0 and variance 1 for each channel over the
            training samples x), or {"mean": [...], "std": [...]} on the unit scale, one number or one a channel.
        x: (N, C, H, W) training samples as stored, after padding.
        peak: the stored value that means 1.

    Raises:
        ConfigError: the spec is none of these, or has a wrong number of channels.
    """
    if isinstance(spec, str):
        expect(spec in NORMALISE, "stream.normalise", f"in {list(NORMALISE)}, or a mapping of mean and std", spec)
        if spec == "standard":
            mean, std = statistics(x)
            return Normalisation(1 / std, -mean / std)
        return Normalisation(torch.tensor([1.0 if spec == "none" else 1 / peak]), torch.zeros(1))
    if set(spec) != {"mean", "std"}:
        raise ConfigError(f"Expected `stream.normalise` to hold mean and std, got {sorted(spec)}")
    mean, std = (torch.tensor([float(v) for v in spec[name]], dtype=torch.float64) for name in ("mean", "std"))
    allowed = (1, x.shape[1]) if x.dim() == 4 else (1,)
    expect(len(mean) == len(std) and len(mean) in allowed, "stream.normalise", f"with {allowed} values", dict(spec))
    expect(bool((std > 0).all()), "stream.normalise.std", "> 0", list(spec["std"]))
    expect(bool(mean.isfinite().all() and std.isfinite().all()), "stream.normalise", "with finite numbers", dict(spec))
    return Normalisation((1 / (std * peak)).float(), (-mean / std).float())


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of stored values, by channel for images: (C,) or (1,) float32."""
    channels = x.unbind(1) if x.dim() == 4 else (x,)
    moments = []
    for values in channels:
        if x.dtype == torch.uint8:  # exact, and quicker than a float copy
            counts = torch.bincount(values.flatten(), minlength=256).double()
            level = torch.arange(256, dtype=torch.float64)
            moments.append(torch.stack([(counts * level).sum(), (counts * level**2).sum()]) / values.numel())
        else:
            moments.append(torch.stack([values.double().mean(), values.double().square().mean()]))
    mean, square = torch.stack(moments).unbind(1)
    std = (square - mean**2).clamp_min(0).sqrt()
    return mean.float(), torch.where(std > 0, std, torch.ones_like(std)).float()


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn for each image from the step's key.

    Attributes:
        crop: pixels of black border from which a window of the original size is cut; 0 = off.
        flip: True mirrors left and right with probability 1/2.
        brightness: factor drawn from [1 - v, 1 + v]; 0 = off.
        contrast: the same, about the image's mean grey.
        saturation: the same, about each pixel's grey; colour images only.
    """

    crop: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        expect(self.crop >= 0, "stream.augmentation.crop", ">= 0", self.crop)
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            expect(0 <= value <= 1, f"stream.augmentation.{name}", "in [0, 1]", value)

    @property
    def jitters(self) -> bool:
        """True if colours change."""
        return max(self.brightness, self.contrast, self.saturation) > 0

    def move(self, x: Tensor, key: Tensor) -> Tensor:
        """Crop and flip stored images (B, C, H, W); the draws of image b are those at place b of the step."""
        n, _, height, width = x.shape
        if self.crop:
            padded = F.pad(x, [self.crop] * 4)
            corner = integers(key, (2, n), 2 * self.crop + 1, "augmentation/crop")
            rows = corner[0, :, None] + torch.arange(height, device=x.device)
            columns = corner[1, :, None] + torch.arange(width, device=x.device)
            image = torch.arange(n, device=x.device)[:, None, None]
            x = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
        if self.flip:
            mirrored = uniform(key, (n, 1, 1, 1), "augmentation/flip") < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        return x.contiguous()

    def jitter(self, x: Tensor, key: Tensor) -> Tensor:
        """Change the colours of images (B, C, H, W) in [0, 1]: brightness, then contrast, then saturation."""
        n = len(x)

        def factor(name: str, width: float) -> Tensor:
            return 1 + width * (2 * uniform(key, (n, 1, 1, 1), f"augmentation/{name}") - 1)

        if self.brightness:
            x = (x * factor("brightness", self.brightness)).clamp(0, 1)
        if self.contrast:
            x = torch.lerp(grey(x).mean((2, 3), keepdim=True), x, factor("contrast", self.contrast)).clamp(0, 1)
        if self.saturation and x.shape[1] == 3:
            x = torch.lerp(grey(x), x, factor("saturation", self.saturation)).clamp(0, 1)
        return x


def augmentation_of(spec: Mapping[str, Any] | None) -> Augmentation | None:
    """Return the augmentation of a mapping of its fields, or None.

    Raises:
        ConfigError: a key is unknown, or a value of the wrong type (a word such as ``no`` is no false).
    """
    if spec is None:
        return None
    kinds = {field.name: field.type for field in fields(Augmentation)}
    for name, value in spec.items():
        expect(name in kinds, "stream.augmentation", f"to hold keys of {list(kinds)} alone", name)
        check_type(value, kinds[name], f"stream.augmentation.{name}")
    return Augmentation(**spec)


def grey(x: Tensor) -> Tensor:
    """Return the luma of images (B, 3, H, W) by ITU-R BT.601, or x itself if it has one channel: (B, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device).reshape(3, 1, 1)
    return (x * weights).sum(1, keepdim=True)


class Pipeline:
    """The transform of one task's split: a `Transform` for `cl.streams.data.Data`.

    Args:
        normalise: applied first; None where the storage holds normalised floats already.
        change: the task's change of input, or None.
        fill: the input value of a black pixel.
        augmentation: applied to stored samples when a key is given, or None.
        peak: the stored value that means 1.
        whole: whether stored values are whole numbers.
    """

    def __init__(
        self,
        normalise: Normalisation | None,
        change: Change | None,
        fill: Tensor,
        augmentation: Augmentation | None = None,
        peak: float = 255.0,
        whole: bool = False,
    ) -> None:
        self.normalise, self.change, self.fill = normalise, change, fill
        self.augmentation, self.peak, self.whole = augmentation, peak, whole

    def __call__(self, x: Tensor, key: Tensor | None) -> Tensor:
        """Return the network's inputs (B, *input) for stored samples x (B, *input)."""
        if self.augmentation is not None and key is not None:
            x = self.augmentation.move(x, key)
            if self.augmentation.jitters:
                x = self.augmentation.jitter(x.to(torch.float32) / self.peak, key) * self.peak
        if self.normalise is not None:
            x = self.normalise(x)
        return x if self.change is None else self.change(x, self.fill)

    def again(self, x: Tensor, key: Tensor) -> Tensor:
        """Augment inputs (B, *input) that were made without a key, as if their stored samples were read with this one.

        Only where the task changes nothing: a change of the input (a permutation, a rotation) follows augmentation.
        """
        stored = x if self.normalise is None else self.normalise.inverse(x)
        return self(stored.round() if self.whole else stored, key)

    def describe(self) -> str:
        """Return a text that is equal for equal transforms."""
        parts = [p.describe() for p in (self.normalise, self.change) if p is not None]
        return " | ".join([*parts, repr(self.augmentation)])
