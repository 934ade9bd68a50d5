"""What learners of sequences share: reading the input, padding, readout.

Inputs are float (B, T, D) or tokens, int64 (B, T). Padding stands at the end, as `cl.learners.readout.real_steps` says,
and never changes a result. A float sample (T,) is read one number a step, an image (C, H, W) row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cl.errors import expect
from cl.learners import readout
from cl.learners.base import Learner
from cl.learners.coded import CodedHead, Codes

OUTPUTS = ("auto", "sequence", "steps")


@dataclass(frozen=True)
class Sequences:
    """Facts of the stream and choices that all learners of sequences share.

    Attributes:
        input_shape: shape of one sample.
        n_classes: outputs C of the head.
        vocabulary: number of tokens, padding included, or 0 for float inputs.
        padded: True if the last feature of float inputs says which steps are real.
        target: as in `StreamInfo`.
        embedding: size of the token embedding.
        reading: what the head reads of a whole sequence, one of `cl.learners.readout.READINGS`.
        outputs: ``sequence`` (one output a sample), ``steps`` (one a step), as `target` asks, or ``auto``.
        head: see `Learner`.
        codes: the bits of each output where the stream answers in bits, else None; see `CodedHead`.
    """

    input_shape: Sequence[int]
    n_classes: int
    vocabulary: int
    padded: bool
    target: str
    embedding: int
    reading: str
    outputs: str
    head: str
    codes: Codes | None = None


class SequenceLearner(Learner):
    """Base of the learners of sequences.

    Blocks map (B, D, T) and the mask of real steps to (B, width, T), so that gates act on units at every step. Features
    are (B, D), or (B, T, D) where every step has an output; logits (B, C) or (B, T, C).

    Args:
        facts: see `Sequences`.

    Raises:
        ConfigError: the shape is not that of a sequence.
    """

    def __init__(self, facts: Sequences) -> None:
        super().__init__(facts.head)
        shape = tuple(facts.input_shape)
        expect(facts.reading in readout.READINGS, "learner.reading", f"in {list(readout.READINGS)}", facts.reading)
        expect(facts.outputs in OUTPUTS, "learner.outputs", f"in {list(OUTPUTS)}", facts.outputs)
        expect(facts.embedding > 0, "learner.embedding", "> 0", facts.embedding)
        expect(1 <= len(shape) <= 3, "stream", "with samples of shape (T,), (T, D) or (C, H, W) for a sequence", shape)
        self.facts = facts
        self.each = facts.target == "steps"
        asked = "steps" if self.each else "sequence"
        rule = f"'auto' or {asked!r} where the stream asks for one answer a {'step' if self.each else 'sample'}"
        expect(facts.outputs in ("auto", asked), "learner.outputs", rule, facts.outputs)
        self.length = shape[1] if len(shape) == 3 else shape[0]
        expect(facts.vocabulary >= 0, "learner.vocabulary", ">= 0", facts.vocabulary)
        if facts.vocabulary > 0:
            expect(len(shape) == 1, "stream", "with samples of shape (T,) for tokens", shape)
            self.inputs = facts.embedding
        else:
            self.inputs = {1: 1, 2: shape[-1], 3: shape[0] * shape[-1]}[len(shape)]
        self.both_ends = False  # True: the second half of the units runs backwards and ends at the first step

    def close(self, width: int) -> None:
        """Add what stands around the blocks: embedding, readout, head; `width` is that of the last block."""
        tokens = self.facts.vocabulary
        self.embedding = nn.Embedding(tokens, self.facts.embedding) if tokens > 0 else None
        self.attention = readout.StateAttention(width) if self.facts.reading == "attention" else None
        codes = self.facts.codes
        self.head = nn.Linear(width, self.facts.n_classes) if codes is None else CodedHead(width, codes)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the inputs (B, D, T) with padding set to zero, and which steps are real (B, T), None for all."""
        real: Tensor | None = None
        if self.embedding is not None:
            real = readout.real_steps(x)
            steps: Tensor = self.embedding(x)
        else:
            expect(x.is_floating_point(), "learner.vocabulary", "given where the inputs are tokens", x.dtype)
            steps = x[..., None] if x.dim() == 2 else x.transpose(1, 2).flatten(2) if x.dim() == 4 else x
            if self.facts.padded:
                real = readout.real_steps(steps)
        if real is not None:
            steps = torch.where(real[..., None], steps, 0.0)
        return steps.transpose(1, 2), real

    def run(self, x: Tensor, gates: Sequence[Tensor] | None = None) -> tuple[list[Tensor], Tensor | None]:
        """Return the output of every block, each (B, width, T), gated, and which steps are real, see `read`."""
        steps, real = self.read(x)
        return self.through(steps, real, gates), real

    def through(self, x: Tensor, real: Tensor | None, gates: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the output of every block, each (B, width, T), gated, for what `read` returned."""
        outputs: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x, real)
            if gates is not None:
                x = x * gates[i][..., None]
            outputs.append(x)
        return outputs

    def activations(self, x: Tensor, gates: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the output of every block, each (B, width, T), gated."""
        return self.run(x, gates)[0]

    def pool(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Turn the last block's output (B, width, T) into features: (B, D), or (B, T, D) for an output a step."""
        states = x.transpose(1, 2)
        if self.attention is not None:
            out: Tensor = self.attention(states, real, self.each)
            return out
        if self.each:
            return states
        if self.facts.reading == "mean":
            return readout.mean(states, real)
        if self.facts.reading == "max":
            return readout.largest(states, real)
        if self.both_ends:
            forward, backward = states.chunk(2, 2)
            return torch.cat([readout.last(forward, real), backward[:, 0]], 1)
        return readout.last(states, real)

    def features(self, x: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return what the head reads: (B, D) or (B, T, D)."""
        outputs, real = self.run(x, gates)
        return self.pool(outputs[-1], real)
