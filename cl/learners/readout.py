"""From the states of a sequence to what the head reads.

Padding stands at the end of a sequence; `real` (B, T) bool says which steps are not padding, None that all are.
"""

import math

import torch
from torch import Tensor, nn

PADDING = 0  # the token
READINGS = ("last", "mean", "max", "attention")


def real_steps(x: Tensor) -> Tensor:
    """Return which steps of padded inputs are real: (B, T) bool for tokens (B, T), or for numbers (B, T, D).

    Padding is the token `PADDING`, or a step whose last feature is 0 where it is 1 at real ones (see `StreamInfo`).
    """
    return x[..., -1] > 0.5 if x.is_floating_point() else x != PADDING


def last(states: Tensor, real: Tensor | None) -> Tensor:
    """Return the state (B, D) of the last real step of `states` (B, T, D)."""
    if real is None:
        return states[:, -1]
    index = (real.sum(1) - 1).clamp_min(0)
    return states.gather(1, index[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


def mean(states: Tensor, real: Tensor | None) -> Tensor:
    """Return the mean (B, D) over the real steps of `states` (B, T, D)."""
    if real is None:
        return states.mean(1)
    weights = real.to(states.dtype)
    return (states * weights[..., None]).sum(1) / weights.sum(1).clamp_min(1)[:, None]


def largest(states: Tensor, real: Tensor | None) -> Tensor:
    """Return the largest value (B, D) of every unit over the real steps of `states` (B, T, D), 0 where none is."""
    if real is not None:
        found = torch.where(real[..., None], states, torch.finfo(states.dtype).min).amax(1)
        return torch.where(real.any(1)[:, None], found, 0)
    return states.amax(1)


def reverse(x: Tensor, real: Tensor | None) -> Tensor:
    """Turn the real part of x (B, T, D) around in time; padding stays at the end. It is its own inverse."""
    if real is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    index = torch.where(real, real.sum(1, keepdim=True) - 1 - steps, steps)
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


class StateAttention(nn.Module):
    """Attention of one state over all states before it (Luong, Pham, Manning 2015, "general" score, equations 5, 8).

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(size, size, bias=False)
        self.combine = nn.Linear(2 * size, size, bias=False)

    def weights(self, queries: Tensor, states: Tensor, allowed: Tensor) -> Tensor:
        """Return attention (B, Q, T) of `queries` (B, Q, D) over `states` (B, T, D); `allowed` (B | 1, Q | 1, T)."""
        scores = self.score(queries) @ states.transpose(1, 2) / math.sqrt(states.shape[2])
        return torch.where(allowed, scores, torch.finfo(scores.dtype).min).softmax(2)

    def allowed(self, states: Tensor, real: Tensor | None, each: bool) -> Tensor:
        """Return which states may be looked at: earlier ones if every step asks, real ones: (B | 1, Q | 1, T) bool."""
        steps = torch.arange(states.shape[1], device=states.device)
        if each:  # padding stands at the end, out of reach of every real step
            return (steps <= steps[:, None])[None]
        return torch.ones_like(steps, dtype=torch.bool)[None, None] if real is None else real[:, None]

    def read_weights(self, states: Tensor, real: Tensor | None, each: bool) -> Tensor:
        """Return the attention (B, 1, T) of the last real step over `states` (B, T, D), or (B, T, T) of `each` step."""
        queries = states if each else last(states, real)[:, None]
        return self.weights(queries, states, self.allowed(states, real, each))

    def forward(self, states: Tensor, real: Tensor | None, each: bool) -> Tensor:
        """Return (B, D) for the last real step of `states` (B, T, D), or (B, T, D) for `each` step."""
        queries = states if each else last(states, real)[:, None]
        context = self.read_weights(states, real, each) @ states
        out: Tensor = torch.tanh(self.combine(torch.cat([context, queries], 2)))
        return out if each else out[:, 0]
