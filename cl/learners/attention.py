"""Self-attention over the steps of a sequence, and the codes that tell it where a step stands."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.errors import expect
from cl.transform import transformed

POSITIONS = ("sinusoidal", "learned", "rotary", "alibi", "none")


def sinusoidal(length: int, width: int, device: torch.device | None = None, base: float = 10000.0) -> Tensor:
    """Return the codes (T, D) of Vaswani et al. 2017, section 3.5: sin and cos of t / base^(2i/D) in turn."""
    angles = _angles(length, width, base, device)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :width]


def _angles(length: int, width: int, base: float, device: torch.device | None) -> Tensor:
    rates = base ** (-torch.arange(0, width, 2, device=device) / width)
    return torch.arange(length, device=device)[:, None] * rates


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Turn each pair of features of x (..., T, D) by an angle t / base^(2i/D) (Su et al. 2021, RoFormer, equation 34).

    The product of two rotated vectors depends on their distance in time alone. Angles grow with time, so that they are
    rounded to the type of x after the cosine alone: half precision would be 1 rad off after 300 steps.
    """
    angles = _angles(x.shape[-2], x.shape[-1], base, x.device)
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def alibi(length: int, heads: int, device: torch.device | None = None) -> Tensor:
    """Return the biases (heads, T, T) of Press, Smith, Lewis 2022: -slope * distance, slopes 2^(-8 h / heads)."""
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device=device) / heads)
    steps = torch.arange(length, device=device)
    return -slopes[:, None, None] * (steps[:, None] - steps).abs()


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    Args:
        width: D.
        heads: number of heads; divides D, into even parts for ``rotary``.
        causal: True looks at earlier steps and its own only.
        position: one of `POSITIONS`; ``rotary`` and ``alibi`` act here.
    """

    def __init__(self, width: int, heads: int, causal: bool, position: str) -> None:
        super().__init__()
        expect(heads > 0 and width % heads == 0, "learner.heads", f"> 0 and a divisor of width {width}", heads)
        even = (width // heads) % 2 == 0
        expect(position != "rotary" or even, "learner.heads", f"such that {width} / heads is even for rotary", heads)
        self.heads, self.causal, self.position = heads, causal, position
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, heads, T, D / heads); in single precision at least for ``alibi``.

        Half precision tells distances beyond 256 steps apart no more, and scores are rounded to that of their bias.
        """
        q, k, v = self.project(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.position == "alibi":
            wide = torch.promote_types(q.dtype, torch.float32)
            return q.to(wide), k.to(wide), v.to(wide)
        return (rotate(q), rotate(k), v) if self.position == "rotary" else (q, k, v)

    def _bias(self, x: Tensor, real: Tensor | None) -> Tensor | None:
        """Return what is added to scores of queries x (B, heads, T, ...): (1 | B, 1 | heads, 1 | T, T), or None."""
        t = x.shape[2]
        bias = alibi(t, self.heads, x.device).to(x.dtype)[None] if self.position == "alibi" else None
        if self.causal:  # padding stands at the end, out of reach of every real step
            if bias is None:
                return None
            return bias + torch.full((t, t), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        if real is not None:
            steps = torch.arange(t, device=x.device)
            open_ = real | (steps == 0)  # a sample that is all padding looks at its first step: no division by zero
            closed = torch.where(open_, 0.0, -torch.inf).to(x.dtype)[:, None, None]
            bias = closed if bias is None else bias + closed
        return bias

    def weights(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return the attention (B, heads, T, T) of each step over the steps of x (B, T, D)."""
        q, k, _ = self._parts(x)
        return self._weights(q, k, self._bias(q, real))

    def _weights(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        if bias is not None:
            scores = scores + bias
        elif self.causal:
            scores = scores + torch.full_like(scores[0, 0], -torch.inf).triu(1)
        return scores.softmax(3)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, T, D) for x (B, T, D); `real` (B, T) bool says which steps are not padding."""
        q, k, v = self._parts(x)
        bias = self._bias(q, real)
        if self.position == "alibi":
            with torch.autocast(x.device.type, enabled=False):
                mixed = self._mix(q, k, v, bias).to(x.dtype)
        else:
            mixed = self._mix(q, k, v, bias)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        if transformed():
            return self._weights(q, k, bias) @ v
        return F.scaled_dot_product_attention(q, k, v, bias, is_causal=self.causal and bias is None)
