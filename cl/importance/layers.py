"""Sums of powers of per-sample gradients of single layers, from their inputs and the gradients of their outputs.

A linear layer's gradient for one sample is the outer product of its output gradient g and its input a, so that
sum_n |g_n a_n^T|^p = (|g|^p)^T |a|^p: one matrix product, without a gradient per sample (Goodfellow 2015, "Efficient
per-example gradient computations"). Where a weight acts at several places of a sample (time steps, pixels) the places
are summed first, sample by sample.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 2**25  # largest number of per-sample gradient entries held at a time (128 MiB)


def supported(layer: nn.Module) -> bool:
    """Return True if `power_sums` knows the layer exactly as it is (a subclass may compute something else)."""
    if type(layer) in (nn.Conv1d, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def separable(layer: nn.Module, a: Tensor) -> bool:
    """Return True if a sample's gradient is one outer product, so that scores may be summed before the product."""
    return isinstance(layer, nn.Linear) and a.dim() == 2


def product_sums(a: Tensor, outputs: Tensor, power: int) -> dict[str, Tensor]:
    """Return the sums of `power_sums` for a separable layer.

    Args:
        a: its input (B, D).
        outputs: (B, O) sum over scores of |gradient with respect to its output|^power.
        power: 1 or 2.
    """
    return {"weight": outputs.T @ raised(a, power), "bias": outputs.sum(0)}


def power_sums(layer: nn.Module, a: Tensor, g: Tensor, power: int) -> dict[str, Tensor]:
    """Return sum over samples of |gradient|^power for the weight and the bias of a layer.

    Args:
        layer: a layer for which `supported` holds.
        a: its input (B, ..., D) or (B, C, *space).
        g: gradient of the scores with respect to its output, of the output's shape.
        power: 1 or 2.
    """
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    if isinstance(layer, nn.Linear):
        groups, columns, g = 1, a.flatten(1, -2).mT, g.flatten(1, -2).mT
    else:
        groups, columns, g = layer.groups, unfold(layer, a), g.flatten(2)
    shape = (len(a), groups, -1, columns.shape[2])
    weight = _outer_sums(g.reshape(shape), columns.reshape(shape), power)
    return {"weight": weight.reshape(layer.weight.shape), "bias": raised(g.sum(2), power).sum(0)}


def raised(x: Tensor, power: int) -> Tensor:
    """Return |x|^power for a power of 1 or 2."""
    return x.square() if power == 2 else x.abs()


def unfold(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the patches that a convolution sees, one a column: (B, C * kernel, places)."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    assert not isinstance(layer.padding, str)
    geometry = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    if isinstance(layer, nn.Conv2d):
        return F.unfold(x, *geometry)
    flat = zip((1, 1, 0, 1), geometry, strict=True)
    return F.unfold(x[:, :, None], *((first, *rest) for first, rest in flat))


def _outer_sums(g: Tensor, a: Tensor, power: int) -> Tensor:
    """Return sum_n |sum_t g_nt a_nt^T|^power: (G, O, I) from (B, G, O, T) and (B, G, I, T), in chunks of samples."""
    groups, out, inputs = g.shape[1], g.shape[2], a.shape[2]
    total = torch.zeros(groups, out, inputs, dtype=g.dtype, device=g.device)
    size = max(1, CHUNK // (groups * out * inputs))
    for gs, xs in zip(torch.split(g, size), torch.split(a, size), strict=True):
        total += raised(gs @ xs.mT, power).sum(0)
    return total
