"""Problems with real-valued answers: the adding problem, and series of changing dynamics."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.seeding import integers, normal, uniform
from cl.streams.sequences.problem import Drawn, Problem

DYNAMICS = ("sine", "square", "sawtooth", "chirp", "autoregressive", "logistic", "lorenz")


@dataclass(frozen=True)
class Adding(Problem):
    """Numbers with two of them marked: what is their sum? (Hochreiter and Schmidhuber 1997).

    One mark lies in each half (Bai, Kolter, Koltun 2018). Always answering 1 gives a squared error of 1/6, .1767 in the
    literature.

    Attributes:
        steps: length T of a sequence, >= 2.
    """

    target: ClassVar[str] = "real"
    lag: ClassVar[tuple[str, str] | None] = ("steps", "steps of the sequence")

    steps: int = 200

    def __post_init__(self) -> None:
        expect(self.steps >= 2, "stream.problems.steps", ">= 2", self.steps)

    @property
    def length(self) -> int:
        """Steps."""
        return self.steps

    @property
    def features(self) -> int:
        """The number and the mark."""
        return 2

    @property
    def class_names(self) -> tuple[str, ...]:
        """The one output."""
        return ("sum",)

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples."""
        half = self.steps // 2
        numbers = uniform(key, (n, self.steps), "adding/numbers")
        first = integers(key, (n, 1), half, "adding/first")
        second = half + integers(key, (n, 1), self.steps - half, "adding/second")
        step = torch.arange(self.steps, device=key.device)
        marked = ((step == first) | (step == second)).to(torch.float32)
        return torch.stack([numbers, marked], -1), (numbers * marked).sum(1, keepdim=True), None


@dataclass(frozen=True)
class Series(Problem):
    """A stretch of a series, within about [-1, 1] (autoregressive: of deviation about 1.2): what are its next values?

    Attributes:
        dynamics: one of `DYNAMICS`.
        steps: length T of the stretch that is seen.
        horizon: values asked for.
        period: steps of one period (sine, square, sawtooth, chirp at its start; autoregressive: of its resonance).
        noise: standard deviation of what is added to the values seen, >= 0; the answer is clean.
    """

    target: ClassVar[str] = "real"

    dynamics: str = "sine"
    steps: int = 50
    horizon: int = 1
    period: float = 20.0
    noise: float = 0.02

    def __post_init__(self) -> None:
        expect(self.dynamics in DYNAMICS, "stream.problems.dynamics", f"in {list(DYNAMICS)}", self.dynamics)
        for name in ("steps", "horizon", "period"):
            expect(getattr(self, name) > 0, f"stream.problems.{name}", "> 0", getattr(self, name))
        expect(self.noise >= 0, "stream.problems.noise", ">= 0", self.noise)

    @property
    def length(self) -> int:
        """Steps that are seen."""
        return self.steps

    @property
    def features(self) -> int:
        """The value."""
        return 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """The values asked for."""
        return tuple(f"+{h + 1}" for h in range(self.horizon))

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples, each with a phase or a start of its own."""
        total = self.steps + self.horizon
        values = self._chaotic(key, n, total) if self.dynamics in ("logistic", "lorenz") else self._waves(key, n, total)
        seen = values[:, : self.steps] + self.noise * normal(key, (n, self.steps), "series/noise")
        return seen[..., None].contiguous(), values[:, self.steps :].contiguous(), None

    def _waves(self, key: Tensor, n: int, total: int) -> Tensor:
        time = torch.arange(total, dtype=torch.float32, device=key.device)
        turns = uniform(key, (n, 1), "series/phase") + time / self.period
        if self.dynamics == "sine":
            return torch.sin(2 * math.pi * turns)
        if self.dynamics == "square":
            return torch.where(turns % 1 < 0.5, 1.0, -1.0)
        if self.dynamics == "sawtooth":
            return 2 * (turns % 1) - 1
        if self.dynamics == "chirp":  # twice as fast at the end as at the start
            return torch.sin(2 * math.pi * (turns + time**2 / (2 * total * self.period)))
        radius, angle = 0.95, 2 * math.pi / self.period
        shocks = 0.3 * normal(key, (n, total), "series/shocks")
        shocks[:, self.steps :] = 0  # what is asked for can be known
        values = [normal(key, (n,), "series/first"), normal(key, (n,), "series/second")]
        for t in range(2, total):
            values.append(2 * radius * math.cos(angle) * values[-1] - radius**2 * values[-2] + shocks[:, t])
        return torch.stack(values[:total], 1) / 2

    def _chaotic(self, key: Tensor, n: int, total: int) -> Tensor:
        start = uniform(key, (3, n), "series/start")
        values: list[Tensor] = []
        if self.dynamics == "logistic":
            x = 0.1 + 0.8 * start[0]
            for _ in range(total):
                values.append(2 * x - 1)
                x = 3.8 * x * (1 - x)
            return torch.stack(values, 1)
        state = torch.stack([start[0] * 10 - 5, start[1] * 10 - 5, 15 + start[2] * 20])
        for t in range(100 + total):  # onto the attractor first; steps of .02 by the midpoint rule
            half = state + 0.01 * _lorenz(state)
            state = state + 0.02 * _lorenz(half)
            if t >= 100:
                values.append(state[0] / 20)
        return torch.stack(values, 1)


def _lorenz(state: Tensor) -> Tensor:
    x, y, z = state
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
