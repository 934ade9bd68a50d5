"""Dropout whose masks are a function of the step's key, so that it is the same in a loop, a population and a resume."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.errors import expect
from cl.seeding import uniform


class Dropout(nn.Module):
    """Zero each unit with probability `p` in training and scale the others by 1 / (1 - p) (Srivastava et al. 2014).

    Args:
        p: probability in [0, 1).
        channels: True drops whole channels of (B, C, H, W).
    """

    dropout_key: Tensor
    rebuilt: ClassVar[tuple[str, ...]] = ("calls",)  # counted anew in every step

    def __init__(self, p: float, channels: bool = False) -> None:
        super().__init__()
        expect(0 <= p < 1, "learner.dropout", "in [0, 1)", p)
        self.p, self.channels, self.calls = p, channels, 0
        self.register_buffer("dropout_key", torch.zeros((), dtype=torch.long), persistent=False)

    def begin_step(self, key: Tensor) -> None:
        """Take a step's key () and count calls from zero: each call within a step draws another mask."""
        self.dropout_key, self.calls = key, 0

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, ...) with units dropped in training mode."""
        if not self.training or self.p == 0:
            return x
        shape = (*x.shape[:2], *(1 for _ in x.shape[2:])) if self.channels else tuple(x.shape)
        keep = uniform(self.dropout_key, shape, f"dropout/{self.calls}") >= self.p
        self.calls += 1
        return x * keep / (1 - self.p)


def dropout(p: float, channels: bool = False, name: str = "learner.dropout") -> list[nn.Module]:
    """Return a dropout layer in a list that is empty for p = 0.

    Raises:
        ConfigError: p is not a probability in [0, 1); the message names the field `name`.
    """
    expect(0 <= p < 1, name, "in [0, 1)", p)
    return [Dropout(p, channels)] if p > 0 else []
