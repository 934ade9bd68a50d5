"""A memory whose samples are chosen on the host when a task has ended, and given up when new groups need room."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cl.errors import expect
from cl.memory.base import Fields, Memory
from cl.memory.selection import HERDING, select
from cl.seeding import generator
from cl.streams.base import StreamInfo, Task

CHUNK = 1000  # samples a forward pass when features are computed


class Exemplars(Memory):
    """Chosen samples of each group (task or class), the most wanted first; fields x, y and task.

    Args:
        capacity: slots M.
        fields: see `Memory`.
        groups: number of groups that will come.
        quota: samples a group, or None: the slots are shared equally by the groups so far (Rebuffi et al. 2017,
            algorithm 5; Hsu et al. 2018), and each gives up its least wanted samples when new ones come.

    Attributes:
        group: (M,) int64, the group of each slot.
    """

    group: Tensor

    def __init__(self, capacity: int, fields: Mapping[str, Tensor], groups: int, quota: int | None = None) -> None:
        rule = f"to give at least {groups} slots in all, one a group"
        expect(capacity >= groups, "strategy.memory_size", rule, capacity)
        super().__init__(capacity, {**fields, "group": torch.zeros((), dtype=torch.long)})
        self.groups, self.quota = groups, quota

    def present(self) -> list[int]:
        """Return the groups that have samples, in order."""
        return sorted(set(self.group[self.filled].tolist()))

    def slots(self, group: int) -> Tensor:
        """Return the slots (n,) of a group, the most wanted first."""
        return ((self.group == group) & self.filled).nonzero()[:, 0]

    def room(self, new: Sequence[int]) -> int:
        """Return how many samples each group may keep once the groups `new` have come."""
        if self.quota is not None:
            return self.quota
        return self.capacity // max(1, len({*self.present(), *new}))

    def store(self, chosen: Mapping[int, Fields]) -> None:
        """Add groups, and shrink the others to their share.

        Args:
            chosen: for each new group the fields (n, ...), the most wanted first; a group that is already there is
                extended behind its present samples.
        """
        room = self.room(list(chosen))
        parts: list[Fields] = []
        for g in sorted({*self.present(), *chosen}):
            fields = self.read(self.slots(g))
            if g in chosen:
                new = {**chosen[g], "group": torch.full((len(chosen[g]["y"]),), g, device=self.filled.device)}
                fields = {name: torch.cat([fields[name], new[name].to(self[name].dtype)]) for name in self.names}
            parts.append({name: value[:room] for name, value in fields.items()})
        total = sum(len(part["group"]) for part in parts)
        for name in self.names:
            buffer = self[name]
            buffer[:total] = torch.cat([part[name] for part in parts])
            buffer[total:] = 0
        self.filled.copy_(torch.arange(self.capacity, device=self.filled.device) < total)

    def choose(
        self,
        task: Task,
        info: StreamInfo,
        by: str,
        how: str,
        features: Callable[[Tensor], Tensor] | None = None,
        later: bool = False,
    ) -> None:
        """Choose exemplars of a finished task and store them.

        Args:
            task: the task.
            info: facts of the stream; its seed draws the ``random`` ones.
            by: groups: ``task``, or ``class`` (of each task, where tasks share their labels).
            how: see `cl.memory.select`.
            features: from inputs (B, *input) to features (B, D), for herding.
            later: True stores what `splits` trains on (`Data.kept`), False inputs.
        """
        data, device = task.train, self.filled.device
        members = {task.index: torch.arange(len(data), device=device)}
        if by == "class":
            offset = task.index * info.n_classes if info.shared_labels else 0
            members = {offset + c: (data.labels == c).nonzero()[:, 0] for c in task.classes}
        room = self.room(list(members))
        chosen: dict[int, Fields] = {}
        for g, positions in members.items():
            found = None
            if how in HERDING and features is not None:
                found = torch.cat([features(data.inputs(part)) for part in torch.split(positions, CHUNK)])
            draw = generator(info.seed, "exemplars", task.index, g)
            positions = positions[select(len(positions), room, how, draw, found).to(device)]
            ids = torch.full((len(positions),), task.index, device=device)
            x = data.kept(positions) if later else data.inputs(positions)
            chosen[g] = {"x": x, "y": data.labels[positions], "task": ids}
        self.store(chosen)
