"""Where attention goes: its mass against distance, of Transformers and of attention over recurrent states."""

import torch
from torch import Tensor

from cl.distance.gradients import Units
from cl.errors import ConfigError
from cl.learners.sequence import SequenceLearner
from cl.learners.transformer import TransformerBlock


def mass_by_distance(weights: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the mean attention that a step pays to the step d before it, d = 0 ... T - 1: (..., T).

    Averaged over the pairs of real steps that lie d apart, so that uniform attention over n steps is 1 / n wherever it
    looks; NaN where no two do. Attention to later steps (networks that are not causal) is left out.

    Args:
        weights: (B, heads, T, T), each row sums to 1.
        real: (B, T) bool, steps that are not padding; None: all.
    """
    b, _, t, _ = weights.shape
    if real is None:
        real = torch.ones(b, t, dtype=torch.bool, device=weights.device)
    pairs = (real[:, :, None] & real[:, None]).to(weights.dtype)
    sums = [(weights * pairs[:, None]).diagonal(-d, 2, 3).sum((0, 2)) for d in range(t)]
    counts = [pairs.diagonal(-d, 1, 2).sum() for d in range(t)]
    return torch.stack(sums, 1) / torch.stack(counts)


def mass_from_last(weights: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the mean attention of the last real step to the step d before it, d = 0 ... T - 1: (heads, T).

    NaN where no sample is so long.

    Args:
        weights: (B, heads, 1, T), attention that is read once.
        real: (B, T) bool, steps that are not padding; None: all.
    """
    b, heads, _, t = weights.shape
    steps = torch.arange(t, device=weights.device)
    last = (real.sum(1) if real is not None else torch.full((b,), t, device=weights.device)) - 1
    place = last[:, None] - steps  # where each distance stands; negative beyond the first step
    there = (place >= 0).to(weights.dtype)
    found = weights[:, :, 0].gather(2, place.clamp_min(0)[:, None].expand(-1, heads, -1)) * there[:, None]
    return found.sum(0) / there.sum(0)


def has_attention(learner: SequenceLearner) -> bool:
    """Return True if a block of the network, or its readout, attends."""
    return learner.attention is not None or any(isinstance(block, TransformerBlock) for block in learner.blocks)


@torch.no_grad()
def attention_weights(learner: SequenceLearner, x: Tensor, units: Units = None) -> tuple[list[Tensor], Tensor | None]:
    """Return the attention of every layer that has some on x (B, *input), and which steps are real.

    Each (B, heads, T, T); attention over recurrent states that is read once has one row: (B, 1, 1, T).

    Raises:
        ConfigError: the network has no attention.
    """
    if not has_attention(learner):
        name = type(learner).__name__
        raise ConfigError(f"Expected `learner` with attention (transformer, gru_attention), got {name}")
    inputs, real = learner.read(x)
    found = []
    outputs = learner.through(inputs, real, units)
    for block, entering in zip(learner.blocks, [inputs, *outputs], strict=False):
        if isinstance(block, TransformerBlock):
            found.append(block.attention_weights(entering, real))
    if learner.attention is not None:
        found.append(learner.attention.read_weights(outputs[-1].transpose(1, 2), real, learner.each)[:, None])
    return found, real
