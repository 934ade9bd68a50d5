"""Use of an external memory: where the heads of an NTM or a DNC stand over time."""

import math

import torch
from torch import Tensor

from cl.learners.memory import MemoryBlock, MemoryLearner


@torch.no_grad()
def addresses(learner: MemoryLearner, x: Tensor) -> dict[str, Tensor]:
    """Return where the heads stand at every step of x (B, *input): ``read`` and ``write``, each (B, T, heads, M).

    NaN at padding.
    """
    block = learner.blocks[0]
    assert isinstance(block, MemoryBlock)
    inputs, real = learner.read(x)
    states = block.cell.scan(inputs.transpose(1, 2))
    found = {name: torch.stack([state[name] for state in states], 1) for name in ("read", "write")}
    if real is None:
        return found
    return {name: torch.where(real[..., None, None], where, torch.nan) for name, where in found.items()}


def sharpness(where: Tensor) -> Tensor:
    """Return 1 - entropy / log M of addresses (..., M): 1 = one slot, 0 = all slots alike."""
    entropy = torch.special.entr(where / where.sum(-1, keepdim=True).clamp_min(1e-12)).sum(-1)
    most: Tensor = entropy / math.log(where.shape[-1])
    return 1 - most


def slots_used(write: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the fraction of slots that some step wrote to with at least `threshold`: (B,) for (B, T, heads, M)."""
    return (write >= threshold).any(2).any(1).to(write.dtype).mean(1)


def lag_of_reading(read: Tensor, write: Tensor) -> Tensor:
    """Return how long ago what is read was written, in steps: (B, T) for addresses (B, T, heads, M).

    The mean of t - s over earlier steps s, weighted by how much the read heads at t stand where the write heads stood
    at s; NaN at the first step, and at padding.
    """
    overlap = torch.einsum("bthm,bsgm->bts", read, write.nan_to_num())
    steps = torch.arange(read.shape[1], device=read.device)
    apart = steps[:, None] - steps
    overlap = torch.where(apart > 0, overlap, 0.0)
    return (overlap * apart).sum(2) / overlap.sum(2)
