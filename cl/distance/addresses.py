"""Use of an external memory: where the heads of an NTM or a DNC stand over time."""

import math

import torch
from torch import Tensor

from cl.learners.memory import MemoryBlock, MemoryLearner


@torch.no_grad()
def addresses(learner: MemoryLearner, x: Tensor) -> dict[str, Tensor]:
    """Return where the heads stand at every step of x (B, *input): ``read`` and ``write``, each (B, T, heads, M)."""
    block = learner.blocks[0]
    assert isinstance(block, MemoryBlock)
    states = block.cell.scan(learner.read(x)[0].transpose(1, 2))
    return {name: torch.stack([state[name] for state in states], 1) for name in ("read", "write")}


def sharpness(where: Tensor) -> Tensor:
    """Return 1 - entropy / log M of addresses (..., M): 1 = one slot, 0 = all slots alike."""
    entropy = torch.special.entr(where / where.sum(-1, keepdim=True).clamp_min(1e-12)).sum(-1)
    most: Tensor = entropy / math.log(where.shape[-1])
    return 1 - most


def slots_used(write: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the fraction of slots that some step wrote to with at least `threshold`: (B,) for (B, T, heads, M)."""
    return (write.amax((1, 2)) >= threshold).to(write.dtype).mean(1)


def lag_of_reading(read: Tensor, write: Tensor) -> Tensor:
    """Return how long ago what is read was written, in steps: (B, T) for addresses (B, T, heads, M).

    The mean of t - s over earlier steps s, weighted by how much the read heads at t stand where the write heads stood
    at s; NaN at the first step.
    """
    overlap = torch.einsum("bthm,bsgm->bts", read, write)
    steps = torch.arange(read.shape[1], device=read.device)
    apart = steps[:, None] - steps
    overlap = torch.where(apart > 0, overlap, 0.0)
    return (overlap * apart).sum(2) / overlap.sum(2)
