"""Neural Turing Machine (Graves, Wayne, Danihelka 2014)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.build import Conditions
from cl.errors import expect
from cl.learners.coded import Codes
from cl.learners.memory import MemoryCell, MemoryLearner, MemoryState, content, written
from cl.learners.sequence import Sequences


def shift(weights: Tensor, kernel: Tensor) -> Tensor:
    """Turn addresses around the ring of slots: w'(i) = sum over j of w(i - j) s(j) (equation 8).

    Args:
        weights: (B, heads, M).
        kernel: (B, heads, 2 r + 1), the probabilities of shifts by -r ... r.
    """
    r = kernel.shape[2] // 2
    turned = [torch.roll(weights, j, 2) * kernel[..., j + r, None] for j in range(-r, r + 1)]
    return torch.stack(turned).sum(0)


def sharpen(weights: Tensor, power: Tensor) -> Tensor:
    """Return w^p / sum w^p over slots (equation 9); weights (B, heads, M), power (B, heads) >= 1."""
    return torch.softmax(power[..., None] * (weights + 1e-16).log(), 2)


class NTMCell(MemoryCell):
    """All heads address the memory as the step found it; then the write heads write, then the read heads read.

    Args:
        inputs, size, slots, slot_size, reads, writes: see `MemoryCell`.
        reach: largest shift r of a head in one step.
    """

    def __init__(self, inputs: int, size: int, slots: int, slot_size: int, reads: int, writes: int, reach: int) -> None:
        self.address_size = slot_size + 3 + 2 * reach + 1
        controls = (reads + writes) * self.address_size + writes * 2 * slot_size
        super().__init__(inputs, size, slots, slot_size, reads, writes, controls)

    def address(self, controls: Tensor, before: Tensor, memory: Tensor) -> Tensor:
        """Return where heads go: by content, gate, shift, sharpening (section 3.3, figure 2).

        Args:
            controls: (B, heads, W + 3 + 2 r + 1).
            before: (B, heads, M), where they stood.
            memory: (B, M, W).
        """
        w = self.slot_size
        keys, strength, gate, power, shifts = torch.split(controls, [w, 1, 1, 1, controls.shape[2] - w - 3], 2)
        found = content(keys, F.softplus(strength.squeeze(2)), memory)
        mixed = torch.lerp(before, found, torch.sigmoid(gate))
        return sharpen(shift(mixed, shifts.softmax(2)), 1 + F.softplus(power.squeeze(2)))

    def access(self, controls: Tensor, state: MemoryState) -> MemoryState:
        """Return the next state of memory and heads."""
        heads = self.reads + self.writes
        size = self.writes * self.slot_size
        addresses, erase, add = torch.split(controls, [heads * self.address_size, size, size], 1)
        erase, add = (torch.unflatten(part, 1, (self.writes, self.slot_size)) for part in (erase, add))
        before = torch.cat([state["read"], state["write"]], 1)
        now = self.address(torch.unflatten(addresses, 1, (heads, self.address_size)), before, state["memory"])
        read, write = torch.split(now, [self.reads, self.writes], 1)
        memory = written(state["memory"], write, torch.sigmoid(erase), torch.tanh(add))
        return {"memory": memory, "read": read, "write": write, "reads": read @ memory}


class NTM(MemoryLearner):
    """An LSTM controller with a memory addressed by content and by location.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        hidden: units of the controller.
        slots: M.
        slot_size: numbers W in a slot.
        reads, writes: heads.
        reach: largest shift of a head in one step.
        parameters: total number of parameters, which sets `hidden`; None leaves it as given.

    Differs from the paper: the memory starts constant (Collier and Beel 2018) and the heads at the first slot.
    """

    only_with: ClassVar[Conditions] = {"embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: int = 100,
        slots: int = 128,
        slot_size: int = 20,
        reads: int = 1,
        writes: int = 1,
        reach: int = 1,
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
        sizes = {"hidden": hidden, "slots": slots, "slot_size": slot_size, "reads": reads, "writes": writes}
        for name, value in sizes.items():
            expect(value > 0, f"learner.{name}", "> 0", value)
        expect(reach >= 0 and 2 * reach < slots, "learner.reach", f">= 0 and < slots / 2 = {slots / 2}", reach)
        self.size(
            lambda size: self.place(NTMCell(self.inputs, size, slots, slot_size, reads, writes, reach)),
            hidden,
            parameters,
        )
