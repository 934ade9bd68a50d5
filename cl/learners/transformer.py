"""Transformer encoder (Vaswani et al. 2017, Attention is all you need)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.build import Conditions
from cl.errors import expect
from cl.learners import layers
from cl.learners.attention import POSITIONS, SelfAttention, sinusoidal
from cl.learners.coded import Codes
from cl.learners.dropout import dropout as make_dropout
from cl.learners.sequence import SequenceLearner, Sequences

NORM_PLACES = ("pre", "post")


class Opening(nn.Module):
    """Projects the inputs to the width of the network and adds the code of their position.

    Args:
        inputs: D.
        width: units.
        position: one of `POSITIONS`; ``sinusoidal`` and ``learned`` act here.
        length: longest sequence, for ``learned``.
    """

    def __init__(self, inputs: int, width: int, position: str, length: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.position, self.length = position, length
        self.codes = nn.Parameter(torch.randn(length, width) * 0.02) if position == "learned" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, width) for x (B, T, D)."""
        out: Tensor = self.project(x)
        t = x.shape[1]
        if self.codes is not None:
            expect(t <= self.length, "learner.max_length", f">= {t}, the length of this sequence", self.length)
            return out + self.codes[:t]
        if self.position == "sinusoidal":
            return out + sinusoidal(t, out.shape[2], out.device).to(out.dtype)
        return out


class TransformerBlock(nn.Module):
    """Attention, then a network of two layers at every step, each with a shortcut and layer normalisation.

    Args:
        width: D.
        heads, causal, position: see `SelfAttention`.
        feedforward: units of the inner layer.
        norm: ``pre`` (before each part: Xiong et al. 2020) or ``post`` (after each sum: as in the paper).
        activation: name in `cl.learners.layers`.
        dropout: probability for what each part adds to the shortcut.
        opening: what comes before the first block.
        closing: True normalises the output (the last block with ``pre``).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        causal: bool,
        position: str,
        feedforward: int,
        norm: str,
        activation: str,
        dropout: float,
        opening: nn.Module | None,
        closing: bool,
    ) -> None:
        super().__init__()
        self.opening, self.norm = opening, norm
        self.attention = SelfAttention(width, heads, causal, position)
        inner = [nn.Linear(width, feedforward), layers.activation(activation), nn.Linear(feedforward, width)]
        self.inner = nn.Sequential(*inner)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.drops = nn.ModuleList([nn.Sequential(*make_dropout(dropout)) for _ in range(2)])
        self.closing = nn.LayerNorm(width) if closing else None

    def enter(self, x: Tensor) -> Tensor:
        """Return what the attention's shortcut carries, (B, T, width), for x (B, D, T)."""
        steps = x.transpose(1, 2)
        return steps if self.opening is None else self.opening(steps)

    def attention_weights(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return the attention (B, heads, T, T) that this block pays for its input x (B, D, T)."""
        steps = self.enter(x)
        return self.attention.weights(self.norms[0](steps) if self.norm == "pre" else steps, real)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, width, T) for x (B, D, T); `real` (B, T) bool says which steps are not padding."""
        x = self.enter(x)
        first, second = self.norms
        if self.norm == "pre":
            x = x + self.drops[0](self.attention(first(x), real))
            x = x + self.drops[1](self.inner(second(x)))
        else:
            x = first(x + self.drops[0](self.attention(x, real)))
            x = second(x + self.drops[1](self.inner(x)))
        if self.closing is not None:
            x = self.closing(x)
        return x.transpose(1, 2)


class Transformer(SequenceLearner):
    """A stack of attention blocks over the steps of a sequence.

    Dropout of attention weights is left out (it draws inside a fused kernel, out of reach of the step's key).

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        width: units of every block; with `parameters`, the largest multiple of 2 `heads` that fits.
        layers: number of blocks.
        heads: attention heads.
        feedforward: units of the inner layer; None: 4 `width`; with `parameters`, what is left of the budget.
        norm, activation, dropout: see `TransformerBlock`.
        position: one of `cl.learners.attention.POSITIONS`.
        causal: True: a step sees no later step; None: where every step has an output.
        max_length: longest sequence for ``learned`` positions; None: that of the stream.
        parameters: total number of parameters; None leaves the sizes as given.
    """

    only_with: ClassVar[Conditions] = {
        "max_length": {"position": ("learned",)},
        "embedding": {"vocabulary": "> 0"},
        "feedforward": {"parameters": (None,)},
    }

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        feedforward: int | None = None,
        norm: str = "pre",
        position: str = "sinusoidal",
        causal: bool | None = None,
        max_length: int | None = None,
        activation: str = "gelu",
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
        expect(heads > 0, "learner.heads", "> 0", heads)
        expect(feedforward is None or feedforward > 0, "learner.feedforward", "> 0 or null", feedforward)
        expect(norm in NORM_PLACES, "learner.norm", f"in {list(NORM_PLACES)}", norm)
        expect(position in POSITIONS, "learner.position", f"in {list(POSITIONS)}", position)
        expect(max_length is None or max_length > 0, "learner.max_length", "> 0 or null", max_length)
        expect(causal in (None, True, False), "learner.causal", "true, false or null", causal)
        self.causal = self.each if causal is None else causal
        longest = self.length if max_length is None else max_length

        def build(width: int, inner: int) -> None:
            self.blocks = nn.ModuleList()
            for i in range(layers):
                opening = Opening(self.inputs, width, position, longest) if i == 0 else None
                closing = norm == "pre" and i == layers - 1
                self.blocks.append(
                    TransformerBlock(
                        width, heads, self.causal, position, inner, norm, activation, dropout, opening, closing
                    )
                )
            self.widths = (width,) * layers
            self.close(width)

        if parameters is not None:
            step = 2 * heads
            width = step * self.largest(lambda n: build(n * step, 4 * n * step), parameters)
        inner = 4 * width if feedforward is None else feedforward
        self.size(lambda n: build(width, n), inner, parameters)
