"""Differentiable Neural Computer (Graves et al. 2016, Hybrid computing using a neural network with dynamic memory)."""

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


def retention(free: Tensor, read: Tensor) -> Tensor:
    """Return how much of each slot is not freed, the product over heads of 1 - f w: (B, M).

    Args:
        free: (B, R) free gates.
        read: (B, R, M) where the read heads stood.
    """
    return (1 - free[..., None] * read).prod(1)


def allocation(usage: Tensor) -> Tensor:
    """Return where to write something new: the least used slots first (equation 1 of the methods).

    a[phi_j] = (1 - u[phi_j]) * product over i < j of u[phi_i], with phi the slots from the least to the most used.

    Args:
        usage: (B, M) in [0, 1].
    """
    ordered, slots = usage.sort(1)
    before = F.pad(ordered.cumprod(1), (1, 0), value=1.0)[:, :-1]
    return ((1 - ordered) * before).gather(1, slots.argsort(1))


def link(before: Tensor, precedence: Tensor, write: Tensor) -> Tensor:
    """Return the matrix (B, M, M) of which slot was written after which; its diagonal is zero.

    L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j].

    Args:
        before: (B, M, M).
        precedence: (B, M), how much each slot was the last one written.
        write: (B, M), where the head writes now.
    """
    turned = (1 - write[:, :, None] - write[:, None]) * before + write[:, :, None] * precedence[:, None]
    return turned * (1 - torch.eye(write.shape[1], device=write.device, dtype=write.dtype))


def oneplus(x: Tensor) -> Tensor:
    """Return 1 + log(1 + e^x), in [1, inf)."""
    return 1 + F.softplus(x)


class DNCCell(MemoryCell):
    """One write head with dynamic allocation, R read heads that follow content or the order of writing.

    The state has ``usage`` (B, M), ``precedence`` (B, M) and ``link`` (B, M, M) besides.

    Args:
        inputs, size, slots, slot_size, reads: see `MemoryCell`.
    """

    def __init__(self, inputs: int, size: int, slots: int, slot_size: int, reads: int) -> None:
        w, r = slot_size, reads
        self.parts = [r * w, r, w, 1, w, w, r, 1, 1, 3 * r]
        super().__init__(inputs, size, slots, slot_size, reads, 1, sum(self.parts))

    def initial(self, x: Tensor) -> MemoryState:
        """Return the state before the first step of x (B, T, D): nothing used, no head anywhere."""
        empty = x.new_zeros(x.shape[0], self.slots)
        state = super().initial(x)
        nowhere = {name: torch.zeros_like(state[name]) for name in ("read", "write")}
        return state | nowhere | {"usage": empty, "precedence": empty, "link": empty[:, None] * empty[..., None]}

    def access(self, controls: Tensor, state: MemoryState) -> MemoryState:
        """Return the next state of memory and heads (methods, "interface parameters" to "memory addressing")."""
        r, w = self.reads, self.slot_size
        keys, strengths, key, strength, erase, new, free, allocate, gate, modes = torch.split(controls, self.parts, 1)
        wrote = state["write"][:, 0]
        usage = state["usage"]
        usage = (usage + wrote - usage * wrote) * retention(torch.sigmoid(free), state["read"])
        alike = content(key[:, None], oneplus(strength), state["memory"])[:, 0]
        write = torch.sigmoid(gate) * torch.lerp(alike, allocation(usage), torch.sigmoid(allocate))
        memory = written(state["memory"], write[:, None], torch.sigmoid(erase)[:, None], new[:, None])
        order = link(state["link"], state["precedence"], write)
        precedence = (1 - write.sum(1, keepdim=True)) * state["precedence"] + write
        forward = state["read"] @ order.transpose(1, 2)
        backward = state["read"] @ order
        found = content(keys.reshape(-1, r, w), oneplus(strengths), memory)
        mode = modes.reshape(-1, r, 3).softmax(2)
        read = mode[..., :1] * backward + mode[..., 1:2] * found + mode[..., 2:] * forward
        return {
            "memory": memory,
            "read": read,
            "write": write[:, None],
            "reads": read @ memory,
            "usage": usage,
            "precedence": precedence,
            "link": order,
        }


class DNC(MemoryLearner):
    """An LSTM controller with a memory that allocates slots and remembers the order of writing.

    Args:
        input_shape, n_classes, vocabulary, padded, target, embedding, reading, outputs, head, codes: see `Sequences`.
        hidden: units of the controller.
        slots: M; the cost of a step grows with its square.
        slot_size: numbers W in a slot.
        reads: read heads R.
        parameters: total number of parameters, which sets `hidden`; None leaves it as given.
    """

    only_with: ClassVar[Conditions] = {"embedding": {"vocabulary": "> 0"}}

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: int = 100,
        slots: int = 32,
        slot_size: int = 16,
        reads: int = 2,
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
        sizes = {"hidden": hidden, "slots": slots, "slot_size": slot_size, "reads": reads}
        for name, value in sizes.items():
            expect(value > 0, f"learner.{name}", "> 0", value)
        self.size(lambda size: self.place(DNCCell(self.inputs, size, slots, slot_size, reads)), hidden, parameters)
