"""Temporal convolutional network.

Bai, Kolter, Koltun 2018, An empirical evaluation of generic convolutional and recurrent networks for sequence modeling.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.build import Conditions
from cl.errors import expect
from cl.learners import layers
from cl.learners.coded import Codes
from cl.learners.dropout import dropout as make_dropout
from cl.learners.sequence import SequenceLearner, Sequences

LONGEST = 4096  # steps that any kernel may look back over, where sequences are short; it takes so much padding
TCN_NORMS = ("weight", "none")


class CausalConv(nn.Module):
    """A convolution over time that sees the present and the past only.

    Args:
        inputs: D.
        width: channels out.
        kernel: length of the kernel in steps.
        dilation: distance between the steps the kernel sees.
        norm: ``weight``: each kernel is a direction times a learned length (Salimans and Kingma 2016); ``none``.
    """

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, width, kernel, dilation=dilation)
        self.dilation, self.past = dilation, (kernel - 1) * dilation
        self.length = nn.Parameter(self._norm().detach()) if norm == "weight" else None

    def _norm(self) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self.convolution.weight, dim=(1, 2), keepdim=True)
        return norms

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, T) for x (B, D, T)."""
        weight = self.convolution.weight
        if self.length is not None:
            norm = self._norm()
            there = norm > 0  # a kernel that was cut as a whole has no direction: it is silent
            weight = weight * torch.where(there, self.length / torch.where(there, norm, 1.0), 0.0)
        return F.conv1d(F.pad(x, (self.past, 0)), weight, self.convolution.bias, dilation=self.dilation)


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions and a shortcut (figure 1b of the paper); ends in its activation.

    Args:
        inputs: D.
        width: channels out.
        inner: channels between the two convolutions.
        kernel: length of the kernels in steps.
        dilation: distance between the steps a kernel sees.
        norm: ``weight`` (Salimans and Kingma 2016, as in the paper) or ``none``.
        activation: name in `cl.learners.layers`.
        dropout: probability for units after each convolution (single units, as their code; their text: channels).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        inner: int,
        kernel: int,
        dilation: int,
        norm: str,
        activation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in ((inputs, inner), (inner, width)):
            parts.append(CausalConv(before, after, kernel, dilation, norm))
            parts += [layers.activation(activation), *make_dropout(dropout)]
        self.residual = nn.Sequential(*parts)
        self.shortcut = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()
        self.activation = layers.activation(activation)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, width, T) for x (B, D, T); later steps, padding among them, are never seen."""
        out: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return out


class TCN(SequenceLearner):
    """Blocks of dilated causal convolutions; the dilation doubles from block to block.

    How far an output sees: `reach`.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        channels: channels of every block.
        levels: number of blocks; None: as many as it takes to see the whole sequence.
        kernel, norm, activation, dropout: see `TemporalBlock`.
        parameters: total number of parameters, which sets the channels; what is left of it widens blocks between their
            two convolutions, the last ones first.
    """

    only_with: ClassVar[Conditions] = {"embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        channels: int = 25,
        levels: int | None = None,
        kernel: int = 7,
        norm: str = "weight",
        activation: str = "relu",
        dropout: float = 0.0,
        embedding: int = 64,
        reading: str = "last",
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
        expect(channels > 0, "learner.channels", "> 0", channels)
        expect(kernel > 1, "learner.kernel", "> 1", kernel)
        expect(norm in TCN_NORMS, "learner.norm", f"in {list(TCN_NORMS)}", norm)
        depth = 1
        while levels is None and reach(kernel, depth) < self.length:
            depth += 1
        if levels is not None:
            most, longest = 1, max(LONGEST, 16 * self.length)
            while (kernel - 1) * 2**most <= longest:
                most += 1
            rule = f"in 1 to {most} (with kernel {kernel} the last block then looks back over at most {longest} steps)"
            expect(0 < levels <= most, "learner.levels", rule, levels)
            depth = levels

        def build(width: int, more: int) -> None:
            self.blocks = nn.ModuleList()
            for i in range(depth):
                inner = width + (more + i) // depth
                inputs = self.inputs if i == 0 else width
                self.blocks.append(TemporalBlock(inputs, width, inner, kernel, 2**i, norm, activation, dropout))
            self.widths = (width,) * depth
            self.close(width)

        if parameters is not None:
            channels = self.largest(lambda n: build(n, 0), parameters)
        self.size(lambda n: build(channels, n - 1), 1, parameters)


def reach(kernel: int, levels: int) -> int:
    """Return how many steps, its own included, an output of the network sees.

    >>> reach(7, 8)
    3061
    """
    return 1 + 2 * (kernel - 1) * int(2**levels - 1)
