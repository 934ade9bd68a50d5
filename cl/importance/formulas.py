"""Sums of powers of per-sample gradients for functions with a weight and a bias, in closed form.

From what a function was given and the gradient of its output follows the gradient of its weight for every sample: for a
linear map the outer product of the two, so that sum_n |g_n a_n^T|^p = (|g|^p)^T |a|^p, one matrix product without a
gradient per sample (Goodfellow 2015, "Efficient per-example gradient computations").
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.importance import layers
from cl.importance.layers import outer_sums, raised
from cl.products import linear

Given = Mapping[str, Any]  # the arguments of a call, by name
Pairs = Sequence[tuple[Given, Tensor]]  # calls with one parameter, and the gradients of their outputs


class Formula(ABC):
    """What is known of a function of torch.

    Args:
        arguments: names of the function's arguments, in order; the first is the input.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def read(self, args: Sequence[Any], kwargs: Given, samples: int) -> dict[str, Any] | None:
        """Return the arguments of a call by name, or None where the formula does not hold for `samples` samples."""
        given = {"weight": None, "bias": None} | dict(zip(self.arguments, args, strict=False)) | dict(kwargs)
        x = given["input"]
        return given if x.dim() > 1 and len(x) == samples and self.holds(given) else None

    def holds(self, given: Given) -> bool:
        """Return True if a call is one that the formula is for."""
        return True

    def separable(self, given: Given) -> bool:
        """Return True if a sample's gradient of the weight is one outer product, see `product`."""
        return False

    def product(self, given: Given, outputs: Tensor, power: int) -> Tensor:
        """Return what `weight` does for one separable call, from |gradient of the output|^power: (O, I)."""
        return linear(outputs.T, raised(given["input"], power).T)

    @abstractmethod
    def weight(self, pairs: Pairs, power: int) -> Tensor:
        """Return sum over samples of |gradient|^power, in the shape of the weight."""

    def bias(self, pairs: Pairs, power: int) -> Tensor:
        """Return sum over samples of |gradient|^power, in the shape of the bias."""
        return raised(_total(self.shift(given, g) for given, g in pairs), power).sum(0)

    def shift(self, given: Given, g: Tensor) -> Tensor:
        """Return the gradient of the bias for every sample, (B, O): the output's, summed over places."""
        return g.flatten(1, -2).sum(1) if g.dim() > 2 else g


class Linear(Formula):
    """`F.linear`: x (B, ..., I) to (B, ..., O)."""

    def separable(self, given: Given) -> bool:
        """Return True where a sample is one vector."""
        return bool(given["input"].dim() == 2)

    def weight(self, pairs: Pairs, power: int) -> Tensor:
        """Return the sums for a weight (O, I)."""
        out, a = _places(g for _, g in pairs), _places(given["input"] for given, _ in pairs)
        return outer_sums(out.mT[:, None], a.mT[:, None], power)[0]


class Convolution(Formula):
    """`F.conv1d` and `F.conv2d`: x (B, I, *space) to (B, O, *space)."""

    def holds(self, given: Given) -> bool:
        """Return False for padding given as a word."""
        return not isinstance(given.get("padding"), str)

    def weight(self, pairs: Pairs, power: int) -> Tensor:
        """Return the sums for a weight (O, I / groups, *kernel)."""
        first = pairs[0][0]
        out, a = _joined([g.flatten(2) for _, g in pairs], 2), _joined([self._patches(given) for given, _ in pairs], 2)
        shape = (len(out), first.get("groups", 1), -1, out.shape[2])
        return outer_sums(out.reshape(shape), a.reshape(shape), power).reshape(first["weight"].shape)

    def _patches(self, given: Given) -> Tensor:
        geometry = (given.get(name, default) for name, default in (("dilation", 1), ("padding", 0), ("stride", 1)))
        return layers.patches(given["input"], given["weight"].shape[2:], *geometry)

    def shift(self, given: Given, g: Tensor) -> Tensor:
        """Return the gradient of the bias: (B, O)."""
        return g.flatten(2).sum(2)


class Embedding(Formula):
    """`F.embedding`: tokens (B, ...) to (B, ..., D)."""

    def holds(self, given: Given) -> bool:
        """Return False where looking up changes the weight, or its gradient is scaled."""
        return given.get("max_norm") is None and not given.get("scale_grad_by_freq", False)

    def weight(self, pairs: Pairs, power: int) -> Tensor:
        """Return the sums for a weight (V, D)."""
        weight, padding = pairs[0][0]["weight"], pairs[0][0].get("padding_idx")
        tokens, out = _joined([given["input"].flatten(1) for given, _ in pairs], 1), _places(g for _, g in pairs)
        if padding is not None:
            out = out * (tokens != padding)[..., None]
        total, size = torch.zeros_like(weight), max(1, layers.CHUNK // weight.numel())
        for rows, g in zip(torch.split(tokens, size), torch.split(out, size), strict=True):
            places = rows + len(weight) * torch.arange(len(rows), device=rows.device)[:, None]
            each = weight.new_zeros(len(rows) * len(weight), weight.shape[1])
            each.index_add_(0, places.flatten(), g.flatten(0, 1))
            total += raised(each, power).view(len(rows), *weight.shape).sum(0)
        return total


class Normalisation(Formula):
    """A normalisation whose units or channels are then scaled and shifted.

    Args:
        arguments: see `Formula`.
        plain: from the arguments to the normalised input, neither scaled nor shifted.
        last: True if units are the last dimension, False if they are the second one.
    """

    def __init__(self, *arguments: str, plain: Callable[[Given], Tensor], last: bool) -> None:
        super().__init__(*arguments)
        self.plain, self.last = plain, last

    def holds(self, given: Given) -> bool:
        """Return False where samples are normalised by each other, or over more than the units."""
        return not given.get("training", False) and len(given.get("normalized_shape", (0,))) == 1

    def weight(self, pairs: Pairs, power: int) -> Tensor:
        """Return the sums for a scale (O,)."""
        return raised(_total(self.shift(given, g * self.plain(given)) for given, g in pairs), power).sum(0)

    def shift(self, given: Given, g: Tensor) -> Tensor:
        """Return the gradient of the shift: (B, O)."""
        return super().shift(given, g if self.last else g.flatten(2).mT if g.dim() > 2 else g)


def _total(parts: Iterable[Tensor]) -> Tensor:
    first, *others = parts
    return sum(others, first)


def _places(parts: Iterable[Tensor]) -> Tensor:
    """Return (B, places, O) for some (B, ..., O)."""
    return _joined([part[:, None] if part.dim() == 2 else part.flatten(1, -2) for part in parts], 1)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Return tensors one after another along a dimension; one alone is not copied."""
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]


def _layer_norm(given: Given) -> Tensor:
    return F.layer_norm(given["input"], given["normalized_shape"], eps=given.get("eps", 1e-5))


def _group_norm(given: Given) -> Tensor:
    return F.group_norm(given["input"], given["num_groups"], eps=given.get("eps", 1e-5))


def _batch_norm(given: Given) -> Tensor:
    return F.batch_norm(given["input"], given["running_mean"], given["running_var"], eps=given.get("eps", 1e-5))


_CONVOLUTION = Convolution("input", "weight", "bias", "stride", "padding", "dilation", "groups")
FORMULAS: dict[Any, Formula] = {
    F.linear: Linear("input", "weight", "bias"),
    F.conv1d: _CONVOLUTION,
    F.conv2d: _CONVOLUTION,
    F.embedding: Embedding("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
    F.layer_norm: Normalisation("input", "normalized_shape", "weight", "bias", "eps", plain=_layer_norm, last=True),
    F.group_norm: Normalisation("input", "num_groups", "weight", "bias", "eps", plain=_group_norm, last=False),
    F.batch_norm: Normalisation(
        *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
        plain=_batch_norm,
        last=False,
    ),
}
