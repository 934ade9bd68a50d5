"""Whether a function transform is at work: fused kernels have no batching rules, their explicit forms have."""

import torch


def transformed() -> bool:
    """Return True inside `torch.func.vmap`, `grad`, `jacrev` and the like.

    Fused kernels (LSTM, GRU, attention) run in the plain path. Under a transform the same arithmetic is written out
    step by step, so that populations, Fisher information per sample and Jacobians work on every learner.
    """
    return torch._C._functorch.maybe_current_level() is not None
