"""A memory shared as equally as possible by the groups seen so far, without knowing them in advance."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cl.memory.base import Fields, Memory
from cl.seeding import uniform


class Balanced(Memory):
    """Balanced reservoirs: each group holds a uniform sample of what it offered, and the largest group gives way first.

    Does what class-balancing reservoir sampling (Chrysakis and Moens 2020) does, by ranks: every sample draws a number
    once, a group keeps its smallest numbers, and the slots go to the smallest ranks. A group's share only shrinks once
    the memory is full, so its samples are a uniform sample of all it offered, whatever the order of the stream.

    Args:
        capacity: slots M.
        fields: see `Memory`.
        groups: number of groups that may ever come (classes or tasks of the stream).
        newcomers: False refuses a sample of a group that has its share, as the greedy sampler of GDumb (Prabhu et al.
            2020): the first samples of a group stay, apart from those drawn to make room for other groups.

    Attributes:
        group: (M,) int64, the group of each slot.
        number: (M,) float32, the number each sample drew.
    """

    group: Tensor
    number: Tensor

    def __init__(self, capacity: int, fields: Mapping[str, Tensor], groups: int, newcomers: bool = True) -> None:
        super().__init__(capacity, {**fields, "group": torch.zeros((), dtype=torch.long), "number": torch.zeros(())})
        self.groups, self.newcomers = groups, newcomers

    def add(self, values: Fields, key: Tensor, group: Tensor | None = None) -> None:
        """Offer a batch of samples with their groups; see `Memory.add`."""
        assert group is not None, "a balanced memory needs groups"
        size, m = len(group), self.capacity
        number = uniform(key, (size,), "balanced" + self.draws)
        present = torch.cat([self.filled, torch.ones_like(group, dtype=torch.bool)])
        late = 0.0 if self.newcomers else 1.0 + torch.arange(size, device=group.device)
        drawn = torch.cat([self.number, number * (1 if self.newcomers else 0) + late])
        rank = self._rank(torch.cat([self.group, group]), drawn, present)
        # The M smallest (rank, number) stay; empty slots come last of all.
        order = torch.where(present, drawn, torch.inf).argsort(stable=True)
        order = order[torch.where(present, rank, torch.iinfo(torch.long).max)[order].argsort(stable=True)]
        stays = torch.zeros_like(order).scatter(0, order, (torch.arange(m + size, device=order.device) < m).long())
        # The stored samples that go leave as many free slots as there are samples that enter.
        free = (stays[:m] == 0) | ~self.filled
        slots = (~free).long().argsort(stable=True)
        entering = stays[m:] == 1
        slot = slots[(entering.long().cumsum(0) - 1).clamp(0, m - 1)]
        self.write(slot, entering, {**values, "group": group, "number": number})

    def _rank(self, group: Tensor, drawn: Tensor, present: Tensor) -> Tensor:
        """Return the rank (N,) of each sample among the present ones of its group, by the number it drew."""
        group = torch.where(present, group, self.groups)  # empty slots form a group of their own
        order = drawn.argsort(stable=True)
        order = order[group[order].argsort(stable=True)]
        sizes = (group[:, None] == torch.arange(self.groups + 1, device=group.device)).sum(0)
        starts = sizes.cumsum(0) - sizes
        ordered = torch.arange(len(order), device=order.device) - starts[group[order]]
        return torch.zeros_like(order).scatter(0, order, ordered)
