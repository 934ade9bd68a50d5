"""Linear layers by oneDNN on processors whose width torch's own matrix products do not use.

On a CPU torch multiplies matrices in single precision by Intel's MKL, which on AMD's processors of family 26 (Zen 5)
uses half of AVX-512's width: 107 GFLOP/s a core, where oneDNN reaches 230. oneDNN comes with torch, too, which calls it
for convolutions alone; here large linear layers and their gradients call it. The numbers are the same up to rounding.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.transform import transformed

LARGE = 1 << 22  # multiplications from which the shorter product outweighs the longer call, about 10 us


@functools.cache
def helps() -> bool:
    """Return True on a processor that is known to gain, where torch has both libraries."""
    has_both = torch._C.has_mkl and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not has_both or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    with contextlib.suppress(OSError):
        return wide_amd(Path("/proc/cpuinfo").read_text())
    return False


def wide_amd(cpuinfo: str) -> bool:
    """Return True for Linux's description of a processor of AMD's with full AVX-512: family 26 or later."""
    facts = dict(re.findall(r"^(vendor_id|cpu family)\s*:\s*(\w+)$", cpuinfo, re.MULTILINE))
    return facts.get("vendor_id") == "AuthenticAMD" and int(facts.get("cpu family", 0)) >= 26


@contextlib.contextmanager
def quick_linear() -> Iterator[None]:
    """Let every `nn.Linear` use `linear` inside the block, where this processor gains from it."""
    plain = nn.Linear.forward
    if helps():
        nn.Linear.forward = _forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Linear.forward = plain  # type: ignore[method-assign]


def _forward(self: nn.Linear, input: Tensor) -> Tensor:
    return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `F.linear` of x (..., I), weight (O, I) and bias (O,) or None, by oneDNN where it is large."""
    if not _for_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    given = (x, weight) if bias is None else (x, weight, bias)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    out: Tensor = _Linear.apply(rows, weight, bias) if learns else _product(rows, weight, bias)
    return out.reshape(*x.shape[:-1], len(weight))


def _for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return True for large products of plain tensors on a CPU that gains, neither watched nor transformed.

    What does not fit together is left to torch, which says so; oneDNN's function would not.
    """
    return (
        not torch.compiler.is_compiling()  # first: the compiler sees nothing of the rest
        and x.numel() * weight.shape[0] >= LARGE  # `len` of a tensor is a function of Python's, for every layer
        and helps()
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.shape[-1:] == weight.shape[1:]
        and (bias is None or (bias.shape == weight.shape[:1] and bias.dtype == torch.float32))
        and not transformed()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._len_torch_function_stack()
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (N, I) times the transpose of weight (O, I), plus bias (O,)."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(weight), bias, "none", [], "")
    return out


def _dense(x: Tensor) -> Tensor:
    """Return a matrix as it is, or its transpose, one row after another in memory (a gradient may be expanded)."""
    return x if x.is_contiguous() or x.mT.is_contiguous() else x.contiguous()


class _Linear(torch.autograd.Function):
    """A linear map of rows (N, I) by weight (O, I), of which gradients of any order can be taken."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        return (
            _again(grad, weight.T) if by_x else None,
            _again(grad.T, x.T) if by_weight else None,
            grad.sum(0) if by_bias else None,
        )


def _again(x: Tensor, weight: Tensor) -> Tensor:
    """Return the product of `_Linear` for a gradient, which has one itself where that is asked for."""
    out: Tensor = _Linear.apply(x, weight, None) if torch.is_grad_enabled() else _product(x, weight)
    return out
