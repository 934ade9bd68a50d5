"""Reservoir sampling: every sample seen so far is in memory with the same probability."""

import torch
from torch import Tensor

from cl.memory.base import Shares
from cl.seeding import integers


class Reservoir(Shares):
    """Vitter 1985 (Random sampling with a reservoir, algorithm R): one reservoir, or one a group.

    The n-th sample takes an empty slot, or else a slot drawn from [0, n), which is outside the memory with probability
    1 - share / n.
    """

    def place(self, number: Tensor, key: Tensor) -> Tensor:
        """Return the place (B,) inside the share."""
        drawn = integers(key, number.shape, number, "reservoir" + self.draws)
        return torch.where(number <= self.share, number - 1, drawn)
