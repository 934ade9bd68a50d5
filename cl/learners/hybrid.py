"""Convolutions of several scales over time, then a recurrent network or a Transformer."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.build import Conditions
from cl.errors import expect
from cl.learners import layers as choices
from cl.learners.attention import POSITIONS
from cl.learners.cells import GRUCell, LSTMCell, RNNCell
from cl.learners.coded import Codes
from cl.learners.dropout import dropout as make_dropout
from cl.learners.recurrent import MakeCell, RecurrentBlock
from cl.learners.sequence import SequenceLearner, Sequences
from cl.learners.tcn import CausalConv
from cl.learners.transformer import Opening, TransformerBlock

CELLS: dict[str, MakeCell] = {"rnn": RNNCell, "lstm": LSTMCell, "gru": GRUCell}


class MultiScaleBlock(nn.Module):
    """Causal convolutions with kernels of different lengths, side by side; ends in its activation.

    Args:
        inputs: D.
        channels: channels of each kernel.
        kernels: lengths of the kernels in steps.
        activation: name in `cl.learners.layers`.
    """

    def __init__(self, inputs: int, channels: int, kernels: Sequence[int], activation: str) -> None:
        super().__init__()
        self.scales = nn.ModuleList([CausalConv(inputs, channels, kernel, 1, "none") for kernel in kernels])
        self.activation = choices.activation(activation)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, channels * scales, T) for x (B, D, T)."""
        out: Tensor = self.activation(torch.cat([scale(x) for scale in self.scales], 1))
        return out


class Hybrid(SequenceLearner):
    """Local patterns by convolution, distance by recurrence or attention.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        channels, kernels, activation: see `MultiScaleBlock`.
        body: ``rnn``, ``lstm``, ``gru`` or ``transformer``.
        hidden: units of each layer of the body.
        layers: layers of the body.
        heads: attention heads of a Transformer.
        position: position code of a Transformer, one of `cl.learners.attention.POSITIONS`.
        max_length: longest sequence for a Transformer's ``learned`` positions; None: that of the stream.
        causal: True: a Transformer's step sees no later step; None: where every step has an output.
        dropout: probability for the inputs of recurrent layers, or for what a Transformer's parts add.
        parameters: total number of parameters, which sets `hidden` and `channels` (about a quarter of it).
    """

    only_with: ClassVar[Conditions] = {
        **{name: {"body": ("transformer",)} for name in ("heads", "position", "causal")},
        "max_length": {"body": ("transformer",), "position": ("learned",)},
        "embedding": {"vocabulary": "> 0"},
    }

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        channels: int = 32,
        kernels: Sequence[int] = (3, 7, 15),
        activation: str = "relu",
        body: str = "gru",
        hidden: int = 128,
        layers: int = 1,
        heads: int = 4,
        position: str = "sinusoidal",
        max_length: int | None = None,
        causal: bool | None = None,
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
        bodies = [*CELLS, "transformer"]
        lengths = choices.sizes("learner.kernels", kernels)
        expect(channels > 0, "learner.channels", "> 0", channels)
        expect(body in bodies, "learner.body", f"in {bodies}", body)
        expect(hidden > 0, "learner.hidden", "> 0", hidden)
        expect(layers > 0, "learner.layers", "> 0", layers)
        expect(heads > 0, "learner.heads", "> 0", heads)
        expect(position in POSITIONS, "learner.position", f"in {list(POSITIONS)}", position)
        expect(max_length is None or max_length > 0, "learner.max_length", "> 0 or null", max_length)
        expect(causal in (None, True, False), "learner.causal", "true, false or null", causal)
        make_dropout(dropout)
        longest = self.length if max_length is None else max_length
        self.causal = self.each if causal is None else causal

        def layer(inputs: int, size: int, i: int) -> nn.Module:
            if body != "transformer":
                return RecurrentBlock(inputs, size, CELLS[body], False, False, dropout)
            opening = Opening(inputs, size, position, longest) if i == 0 else None
            closing = i == layers - 1
            return TransformerBlock(
                size, heads, self.causal, position, 4 * size, "pre", "gelu", dropout, opening, closing
            )

        def build(planes: int, size: int) -> None:
            front = planes * len(lengths)
            self.blocks = nn.ModuleList([MultiScaleBlock(self.inputs, planes, lengths, activation)])
            for i in range(layers):
                self.blocks.append(layer(front if i == 0 else size, size, i))
            self.widths = (front, *(size,) * layers)
            self.close(size)

        unit = 2 * heads if body == "transformer" else 1
        if parameters is not None:
            hidden = unit * self.largest(lambda n: build(max(1, n * unit // 4), n * unit), parameters)
            channels = max(1, hidden // 4)
        if unit > 1:  # whichever of the two goes in the smaller steps takes up what is left of the budget
            self.size(lambda planes: build(planes, hidden), channels, parameters)
        else:
            self.size(lambda size: build(channels, size), hidden, parameters)
