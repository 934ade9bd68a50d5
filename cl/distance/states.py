"""How the state of a network moves: within a sequence, and between two points of training."""

import torch
from torch import Tensor

from cl.distance.gradients import Units
from cl.learners.sequence import SequenceLearner


@torch.no_grad()
def states(learner: SequenceLearner, x: Tensor, units: Units = None) -> tuple[Tensor, Tensor | None]:
    """Return the output of the last block at every step of x (B, *input), (B, T, width), and which steps are real."""
    outputs, real = learner.run(x, units)
    return outputs[-1].transpose(1, 2), real


def drift(before: Tensor, now: Tensor, real: Tensor | None = None) -> Tensor:
    """Return how far states moved between two points of training, at every step: (T,).

    ||now - before|| / ||before||, both norms over the batch and the units.

    Args:
        before: (B, T, D), states at the first point.
        now: (B, T, D), states at the second, on the same inputs.
        real: (B, T) bool, steps that are not padding; None: all.
    """
    mask = torch.ones_like(before[..., :1]) if real is None else real[..., None].to(before.dtype)
    moved = ((now - before) * mask).square().sum((0, 2)).sqrt()
    size = (before * mask).square().sum((0, 2)).sqrt()
    return moved / size
