"""Recurrent networks: vanilla, LSTM, GRU; stacked, bidirectional, residual; read at the end or by attention."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.build import Conditions
from cl.errors import expect
from cl.learners import readout
from cl.learners.cells import Cell, GRUCell, LSTMCell, RNNCell
from cl.learners.coded import Codes
from cl.learners.dropout import dropout as make_dropout
from cl.learners.sequence import SequenceLearner, Sequences

MakeCell = Callable[[int, int], Cell]


class RecurrentBlock(nn.Module):
    """One recurrent layer.

    Args:
        inputs: D.
        size: H, units in each direction.
        make: from (D, H) to a cell.
        bidirectional: True adds a cell that reads each sequence backwards; H is then doubled.
        residual: True adds the input to the output where their widths agree.
        dropout: probability for the inputs, one mask a step.
    """

    def __init__(
        self, inputs: int, size: int, make: MakeCell, bidirectional: bool, residual: bool, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Sequential(*make_dropout(dropout))
        self.cell = make(inputs, size)
        self.backward_cell = make(inputs, size) if bidirectional else None
        self.width = 2 * size if bidirectional else size
        self.residual = residual and self.width == inputs

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, width, T) for x (B, D, T); `real` (B, T) bool says which steps are not padding."""
        steps = self.dropout(x).transpose(1, 2)
        out: Tensor = self.cell(steps)
        if self.backward_cell is not None:
            backward = self.backward_cell(readout.reverse(steps, real))
            out = torch.cat([out, readout.reverse(backward, real)], 2)
        out = out.transpose(1, 2)
        return out + x if self.residual else out


class StepBlock(nn.Module):
    """A fully connected layer at every step; ends in tanh.

    Args:
        inputs: D.
        size: units.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, size)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, size, T) for x (B, D, T)."""
        out: Tensor = self.layer(x.transpose(1, 2))
        return out.tanh().transpose(1, 2)


class Recurrent(SequenceLearner):
    """A stack of recurrent layers; see the subclasses for the cells.

    Args:
        facts: see `Sequences`.
        make: from (D, H) to a cell.
        hidden: units H of each layer, in each direction.
        layers: number of layers.
        bidirectional, residual, dropout: see `RecurrentBlock`; dropout acts between layers and before the head.
        readout: widths of the fully connected tanh layers between the recurrent ones and the head.
        parameters: total number of parameters, which sets `hidden`; None leaves it as given.
    """

    def __init__(
        self,
        facts: Sequences,
        make: MakeCell,
        hidden: int,
        layers: int,
        bidirectional: bool,
        residual: bool,
        dropout: float,
        readout: Sequence[int],
        parameters: int | None,
    ) -> None:
        super().__init__(facts)
        expect(all(width > 0 for width in readout), "learner.readout", "of widths > 0", list(readout))
        halves = bidirectional and facts.reading == "last" and not self.each
        rule = "[] where a bidirectional learner is read at both ends (learner.reading=last)"
        expect(not (halves and readout), "learner.readout", rule, list(readout))
        expect(hidden > 0, "learner.hidden", "> 0", hidden)
        expect(layers > 0, "learner.layers", "> 0", layers)
        self.both_ends = bidirectional

        def build(size: int) -> None:
            self.blocks = nn.ModuleList()
            width = self.inputs
            for i in range(layers):
                block = RecurrentBlock(width, size, make, bidirectional, residual, dropout if i > 0 else 0.0)
                self.blocks.append(block)
                width = block.width
            recurrent = (width,) * layers
            for width_out in readout:
                self.blocks.append(StepBlock(width, width_out))
                width = width_out
            self.widths = (*recurrent, *readout)
            self.last = nn.Sequential(*make_dropout(dropout))
            self.close(width)

        self.size(build, hidden, parameters)
        added = any(isinstance(block, RecurrentBlock) and block.residual for block in self.blocks)
        expect(added or not residual, "learner.residual", "false where no layer is as wide as its input", residual)

    def pool(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return features, see `SequenceLearner.pool`."""
        out: Tensor = self.last(super().pool(x, real))
        return out


class RNN(Recurrent):
    """Vanilla recurrent network (Elman 1990); with ``relu`` and ``identity`` the IRNN (Le, Jaitly, Hinton 2015).

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        hidden, layers, bidirectional, residual, dropout, readout, parameters: see `Recurrent`.
        activation, recurrent_init: see `RNNCell`.
    """

    only_with: ClassVar[Conditions] = {"embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: int = 128,
        layers: int = 1,
        activation: str = "tanh",
        recurrent_init: str = "default",
        bidirectional: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
        embedding: int = 64,
        reading: str = "last",
        outputs: str = "auto",
        readout: Sequence[int] = (),
        parameters: int | None = None,
        head: str = "auto",
        vocabulary: int = 0,
        padded: bool = False,
        target: str = "class",
        codes: Codes | None = None,
    ) -> None:
        facts = Sequences(input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes)

        def make(inputs: int, size: int) -> Cell:
            return RNNCell(inputs, size, activation, recurrent_init)

        super().__init__(facts, make, hidden, layers, bidirectional, residual, dropout, readout, parameters)


class LSTM(Recurrent):
    """Long short-term memory.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        hidden, layers, bidirectional, residual, dropout, readout, parameters: see `Recurrent`.
        forget_bias, timescale, peepholes, recurrent_init: see `LSTMCell`.
    """

    only_with: ClassVar[Conditions] = {"forget_bias": {"timescale": (None,)}, "embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: int = 128,
        layers: int = 1,
        forget_bias: float | None = 1.0,
        timescale: int | None = None,
        peepholes: bool = False,
        recurrent_init: str = "default",
        bidirectional: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
        embedding: int = 64,
        reading: str = "last",
        outputs: str = "auto",
        readout: Sequence[int] = (),
        parameters: int | None = None,
        head: str = "auto",
        vocabulary: int = 0,
        padded: bool = False,
        target: str = "class",
        codes: Codes | None = None,
    ) -> None:
        facts = Sequences(input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes)

        def make(inputs: int, size: int) -> Cell:
            return LSTMCell(inputs, size, forget_bias, timescale, peepholes, recurrent_init)

        super().__init__(facts, make, hidden, layers, bidirectional, residual, dropout, readout, parameters)


class GRU(Recurrent):
    """Gated recurrent units.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        hidden, layers, bidirectional, residual, dropout, readout, parameters: see `Recurrent`.
        keep_bias, timescale, recurrent_init: see `GRUCell`.
    """

    only_with: ClassVar[Conditions] = {"keep_bias": {"timescale": (None,)}, "embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: int = 128,
        layers: int = 1,
        keep_bias: float | None = None,
        timescale: int | None = None,
        recurrent_init: str = "default",
        bidirectional: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
        embedding: int = 64,
        reading: str = "last",
        outputs: str = "auto",
        readout: Sequence[int] = (),
        parameters: int | None = None,
        head: str = "auto",
        vocabulary: int = 0,
        padded: bool = False,
        target: str = "class",
        codes: Codes | None = None,
    ) -> None:
        facts = Sequences(input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes)

        def make(inputs: int, size: int) -> Cell:
            return GRUCell(inputs, size, keep_bias, timescale, recurrent_init)

        super().__init__(facts, make, hidden, layers, bidirectional, residual, dropout, readout, parameters)
