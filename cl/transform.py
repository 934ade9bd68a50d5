"""What kind of program runs: plain, or under a function transform or a compiler, which see no values."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def transformed() -> bool:
    """Return True inside `torch.func.vmap`, `grad`, `jacrev` and the like.

    Fused kernels (LSTM, GRU, attention) run in the plain path. Under a transform the same arithmetic is written out
    step by step, so that populations, Fisher information per sample and Jacobians work on every learner.
    """
    return torch._C._functorch.maybe_current_level() is not None


_written_out = 0  # blocks of `written_out` that are open


@contextmanager
def written_out() -> Iterator[None]:
    """Let recurrent layers write out every step in the block, so that what weights do there can be seen."""
    global _written_out
    _written_out += 1
    try:
        yield
    finally:
        _written_out -= 1


def fused() -> bool:
    """Return True where one kernel may stand for all steps of a sequence."""
    return _written_out == 0 and not transformed()


def readable(x: Tensor) -> bool:
    """Return True where a program may branch on the values of `x` at no cost: on a CPU, in the plain path.

    On a GPU reading a value waits for all work before it; under a transform or a compiler there is none to read.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed()
