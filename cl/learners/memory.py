"""External memory: what the Neural Turing Machine and the Differentiable Neural Computer share.

A state is a dict of tensors: ``hidden`` and ``cell`` (B, H) of the controller, ``memory`` (B, M, W) with M slots of W
numbers, ``reads`` (B, R, W), ``read`` (B, R, M) and ``write`` (B, heads, M): where the heads stand.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.learners.cells import LSTMCell
from cl.learners.sequence import SequenceLearner, Sequences
from cl.transform import fused

MemoryState = dict[str, Tensor]
EMPTY = 1e-6  # content of an empty slot: a constant learns fastest (Collier and Beel 2018)


def content(keys: Tensor, strengths: Tensor, memory: Tensor) -> Tensor:
    """Return addresses by likeness: softmax over slots of strength times cosine (NTM, equations 5, 6; DNC, methods).

    Args:
        keys: (B, heads, W).
        strengths: (B, heads), > 0.
        memory: (B, M, W).

    Returns:
        (B, heads, M), each row sums to 1.
    """
    lengths = keys.norm(dim=2)[:, :, None] * memory.norm(dim=2)[:, None] + 1e-8
    scores = strengths[..., None] * (keys @ memory.transpose(1, 2)) / lengths
    return torch.softmax(scores, 2)


def written(memory: Tensor, where: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """Return the memory after all heads erased, then added (NTM, equations 3, 4; DNC, methods): (B, M, W).

    Matrix products rather than broadcasts: their gradients are matrix products too, and not sums over copies.

    Args:
        memory: (B, M, W).
        where: (B, heads, M).
        erase: (B, heads, W) in [0, 1].
        add: (B, heads, W).
    """
    one = memory.new_ones(1, 1, 1)
    with torch.autocast(memory.device.type, enabled=False):  # what is held would be rounded at every step
        for w, e in zip(torch.split(where, 1, 1), torch.split(erase, 1, 1), strict=True):
            memory = memory * torch.baddbmm(one, w.transpose(1, 2), e, alpha=-1)
        return torch.baddbmm(memory, where.transpose(1, 2), add)


class MemoryCell(nn.Module):
    """An LSTM controller that reads and writes a memory at every step.

    Args:
        inputs: D.
        size: units H of the controller.
        slots: M.
        slot_size: W.
        reads: number of read heads R.
        writes: number of write heads.
        controls: how many numbers the controller gives to the heads.
    """

    def __init__(
        self, inputs: int, size: int, slots: int, slot_size: int, reads: int, writes: int, controls: int
    ) -> None:
        super().__init__()
        self.slots, self.slot_size, self.reads, self.writes, self.inputs = slots, slot_size, reads, writes, inputs
        self.controller = LSTMCell(inputs + reads * slot_size, size)
        self.interface = nn.Linear(size, controls)
        self.width = size + reads * slot_size

    def initial(self, x: Tensor) -> MemoryState:
        """Return the state before the first step of x (B, T, D): an empty memory, all heads at the first slot."""
        b = x.shape[0]
        hidden, cell = self.controller.initial(x)
        first = F.pad(x.new_ones(b, 1, 1), (0, self.slots - 1))
        return {
            "hidden": hidden,
            "cell": cell,
            "memory": x.new_full((b, self.slots, self.slot_size), EMPTY),
            "reads": x.new_zeros(b, self.reads, self.slot_size),
            "read": first.expand(b, self.reads, self.slots),
            "write": first.expand(b, self.writes, self.slots),
        }

    def scan(self, x: Tensor) -> list[MemoryState]:
        """Return the state after every step of x (B, T, D)."""
        weight, bias = self.controller.weights("ih")
        from_input, from_reads = weight[:, : self.inputs], weight[:, self.inputs :]
        quick = fused()  # what the inputs give is then found for all steps at once
        state, found = self.initial(x), []
        for now in (F.linear(x, from_input, bias) if quick else x).unbind(1):
            reads = state["reads"].flatten(1)
            gates = now + F.linear(reads, from_reads) if quick else F.linear(torch.cat([now, reads], 1), weight, bias)
            hidden, cell = self.controller.step(gates, (state["hidden"], state["cell"]))
            controls = self.interface(hidden).to(state["memory"].dtype)  # addresses keep their precision under autocast
            state = {"hidden": hidden, "cell": cell, **self.access(controls, state)}
            found.append(state)
        return found

    @abstractmethod
    def access(self, controls: Tensor, state: MemoryState) -> MemoryState:
        """Return the next state of memory and heads for what the controller says (B, controls)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the controller's output and what was read at every step: (B, T, H + R W) for x (B, T, D)."""
        states = self.scan(x)
        hidden = torch.stack([s["hidden"] for s in states], 1)
        reads = torch.stack([s["reads"] for s in states], 1)
        return torch.cat([hidden, reads.flatten(2)], 2)


class MemoryBlock(nn.Module):
    """A memory cell over the steps of a sequence; causal, so that padding reaches no real step.

    Args:
        cell: the cell.
    """

    def __init__(self, cell: MemoryCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Return (B, H + R W, T) for x (B, D, T)."""
        out: Tensor = self.cell(x.transpose(1, 2))
        return out.transpose(1, 2)


class MemoryLearner(SequenceLearner):
    """A network with one memory cell; see the subclasses for the cells.

    Args:
        facts: see `Sequences`.
    """

    def __init__(self, facts: Sequences) -> None:
        super().__init__(facts)
        self.widths: tuple[int, ...] = ()

    def place(self, cell: MemoryCell) -> None:
        """Set the network's blocks to this cell alone."""
        self.blocks = nn.ModuleList([MemoryBlock(cell)])
        self.widths = (cell.width,)
        self.close(cell.width)
