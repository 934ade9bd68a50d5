"""What layers see, and sums of powers of the gradients that samples give them.

The gradient of a matrix for one sample is the outer product of its output gradient g and its input a. Where a weight
acts at several places of a sample (time steps, pixels) the places are summed first, sample by sample.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 2**25  # largest number of per-sample gradient entries held at a time (128 MiB)


def supported(layer: nn.Module) -> bool:
    """Return True if `unfold` and `nn.Linear` say what the layer computes (a subclass may compute something else)."""
    if type(layer) in (nn.Conv1d, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def raised(x: Tensor, power: int) -> Tensor:
    """Return |x|^power for a power of 1 or 2."""
    return x.square() if power == 2 else x.abs()


def unfold(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the patches that a convolution sees, one a column: (B, C * kernel, places)."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    assert not isinstance(layer.padding, str)
    return patches(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def patches(
    x: Tensor,
    kernel: Sequence[int],
    dilation: Sequence[int] | int,
    padding: Sequence[int] | int,
    stride: Sequence[int] | int,
) -> Tensor:
    """Return the patches of x (B, C, *space) that a kernel sees, one a column: (B, C * kernel, places)."""
    each = [(n,) * len(kernel) if isinstance(n, int) else tuple(n) for n in (kernel, dilation, padding, stride)]
    if len(kernel) == 1:
        each = [(first, *own) for first, own in zip((1, 1, 0, 1), each, strict=True)]
        x = x[:, :, None]
    return F.unfold(x, *each)


def outer_sums(g: Tensor, a: Tensor, power: int) -> Tensor:
    """Return sum_n |sum_t g_nt a_nt^T|^power: (G, O, I) from (B, G, O, T) and (B, G, I, T), in chunks of samples."""
    groups, out, inputs = g.shape[1], g.shape[2], a.shape[2]
    total = torch.zeros(groups, out, inputs, dtype=g.dtype, device=g.device)
    size = max(1, CHUNK // (groups * out * inputs))
    for gs, xs in zip(torch.split(g, size), torch.split(a, size), strict=True):
        total += raised(gs @ xs.mT, power).sum(0)
    return total
