"""A linear state-space layer with a diagonal transition: S4D.

Gu, Gupta, Goel, Re 2022, On the parameterization and initialization of diagonal state space models.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.build import Conditions
from cl.errors import expect
from cl.learners.coded import Codes
from cl.learners.dropout import dropout as make_dropout
from cl.learners.sequence import SequenceLearner, Sequences

SPECTRA = ("lin", "inv")


class S4D(nn.Module):
    """x'(t) = A x(t) + u(t), y(t) = 2 Re(C x(t)) + D u(t) for each of H channels, with A diagonal.

    The output is the convolution of the input with a kernel of the length of the sequence, computed by FFT in
    O(T log T); `scan` is the same as a recurrence.

    Args:
        width: channels H.
        states: real size N of each channel's state; N / 2 complex numbers are kept.
        spectrum: start of A: ``lin`` -1/2 + i pi n (S4D-Lin) or ``inv`` -1/2 + i N/pi (N / (2n + 1) - 1) (S4D-Inv).
        step_min, step_max: the step sizes start log-uniform between them.
    """

    def __init__(self, width: int, states: int, spectrum: str, step_min: float, step_max: float) -> None:
        super().__init__()
        half = states // 2
        n = torch.arange(half, dtype=torch.float32)
        frequency = math.pi * n if spectrum == "lin" else states / math.pi * (states / (2 * n + 1) - 1)
        low, high = math.log(step_min), math.log(step_max)
        self.log_step = nn.Parameter(torch.rand(width) * (high - low) + low)
        self.log_decay = nn.Parameter(torch.full((width, half), math.log(0.5)))
        self.frequency = nn.Parameter(frequency.repeat(width, 1))
        self.c = nn.Parameter(torch.randn(width, half, 2) * math.sqrt(0.5))
        self.d = nn.Parameter(torch.randn(width))

    def discrete(self) -> tuple[Tensor, Tensor]:
        """Return log of the transition over one step, and C times the input's weight: both (H, N / 2) complex."""
        a = torch.complex(-self.log_decay.exp(), self.frequency)
        advance = a * self.log_step.exp()[:, None]
        return advance, torch.complex(self.c[..., 0], self.c[..., 1]) * torch.expm1(advance) / a

    def kernel(self, length: int) -> Tensor:
        """Return the convolution kernel (H, T)."""
        advance, c = self.discrete()
        powers = (advance[..., None] * torch.arange(length, device=self.d.device)).exp()
        kernel: Tensor = (c[..., None] * powers).sum(1).real
        return 2 * kernel

    def forward(self, u: Tensor) -> Tensor:
        """Return y (B, H, T) for u (B, H, T)."""
        t = u.shape[2]
        spectrum = torch.fft.rfft(u.float(), n=2 * t) * torch.fft.rfft(self.kernel(t), n=2 * t)
        convolved: Tensor = torch.fft.irfft(spectrum, n=2 * t)[..., :t].to(u.dtype)
        return convolved + self.d[:, None] * u

    def scan(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, H, T) and the states (B, H, N / 2, T) complex, step by step."""
        advance, c = self.discrete()
        transition = advance.exp()
        state = torch.zeros(u.shape[0], *transition.shape, dtype=transition.dtype, device=u.device)
        outputs, states = [], []
        for now in u.unbind(2):
            state = transition * state + now[..., None]
            outputs.append(2 * (c * state).sum(2).real + self.d * now)
            states.append(state)
        return torch.stack(outputs, 2), torch.stack(states, 3)


class StateSpaceBlock(nn.Module):
    """S4D, activation, gated mixing of channels, shortcut, layer normalisation, as in the authors' reference network.

    Args:
        inputs: D; projected to `width` where it differs.
        width: channels H.
        layer: the state-space layer.
        dropout: probability for units before and after the mixing.
    """

    def __init__(self, inputs: int, width: int, layer: S4D, dropout: float) -> None:
        super().__init__()
        self.opening = nn.Conv1d(inputs, width, 1) if inputs != width else None
        self.layer = layer
        mixing = [nn.GELU(), *make_dropout(dropout), nn.Conv1d(width, 2 * width, 1), nn.GLU(1), *make_dropout(dropout)]
        self.mixing = nn.Sequential(*mixing)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, width, T) for x (B, D, T); causal, so that padding reaches no real step."""
        if self.opening is not None:
            x = self.opening(x)
        out: Tensor = self.norm((x + self.mixing(self.layer(x))).transpose(1, 2))
        return out.transpose(1, 2)


class StateSpace(SequenceLearner):
    """A stack of S4D blocks.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        width: channels H of every block.
        layers: number of blocks.
        states, spectrum, step_min, step_max: see `S4D`.
        dropout: see `StateSpaceBlock`.
        parameters: total number of parameters, which sets `width`; None leaves it as given.
    """

    only_with: ClassVar[Conditions] = {"embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        width: int = 64,
        layers: int = 2,
        states: int = 64,
        spectrum: str = "lin",
        step_min: float = 0.001,
        step_max: float = 0.1,
        dropout: float = 0.0,
        embedding: int = 64,
        reading: str = "mean",
        outputs: str = "auto",
        parameters: int | None = None,
        head: str = "auto",
        vocabulary: int = 0,
        padded: bool = False,
        target: str = "class",
        codes: Codes | None = None,
    ) -> None:
        super().__init__(
            Sequences(input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes)
        )
        expect(width > 0, "learner.width", "> 0", width)
        expect(layers > 0, "learner.layers", "> 0", layers)
        expect(states > 0 and states % 2 == 0, "learner.states", "> 0 and even", states)
        expect(spectrum in SPECTRA, "learner.spectrum", f"in {list(SPECTRA)}", spectrum)
        expect(step_min > 0, "learner.step_min", "> 0", step_min)
        expect(step_max >= step_min, "learner.step_max", f">= learner.step_min ({step_min})", step_max)

        def build(size: int) -> None:
            self.blocks = nn.ModuleList()
            for i in range(layers):
                layer = S4D(size, states, spectrum, step_min, step_max)
                self.blocks.append(StateSpaceBlock(self.inputs if i == 0 else size, size, layer, dropout))
            self.widths = (size,) * layers
            self.close(size)

        self.size(build, width, parameters)
