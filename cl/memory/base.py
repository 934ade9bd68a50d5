"""What all memories share: M slots of named fields, writes with a defined order, draws without a look at the data."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import expect
from cl.seeding import derive, uniform
from cl.streams.base import StreamInfo
from cl.transform import readable

Fields = dict[str, Tensor]
PER = ("all", "task", "class", "both")


def sample_fields(info: StreamInfo) -> Fields:
    """Return one empty sample of a stream, the prototype of a memory's slots: x, y and task.

    Inputs are kept as the network saw them, float32 or, of tokens, int64: whatever is recalled can be read as it is.
    """
    steps = info.target == "steps"
    real = info.target == "real"
    y_shape = info.input_shape[:1] if steps else (info.n_classes,) if real else ()
    y_type = torch.float32 if real else torch.long
    x_type = torch.long if info.vocabulary > 0 else torch.get_default_dtype()
    return {
        "x": torch.zeros(info.input_shape, dtype=x_type),
        "y": torch.zeros(y_shape, dtype=y_type),
        "task": torch.zeros((), dtype=torch.long),
    }


def kept_inputs(info: StreamInfo, batch: Batch) -> Tensor:
    """Return what a memory keeps of the inputs of a batch: (B, *input), not augmented where `augmented` can do it."""
    if info.augment is None or batch.stored is None:
        return batch.x
    return info.augment(batch.stored, None)


def augmented(info: StreamInfo, fields: Fields, key: Tensor, purpose: str) -> Fields:
    """Return recalled fields, their inputs augmented anew where the stream augments.

    Args:
        info: of the stream.
        fields: recalled samples; x is (n, *input), from `kept_inputs`.
        key: the step's.
        purpose: of this recall; two of one step are augmented apart, also those of two memories (`Memory.draws`).
    """
    if info.augment is None:
        return fields
    return fields | {"x": info.augment.again(fields["x"], key + derive(0, f"recalled/{purpose}"))}


def groups_of(info: StreamInfo, per: str) -> int:
    """Return how many groups a stream has: 1 for ``all``, its tasks, its classes, or ``both``: pairs that occur."""
    return {"all": 1, "task": info.n_tasks, "class": info.n_classes, "both": sum(map(len, info.task_classes))}[per]


def slots(info: StreamInfo, size: int, per: str) -> int:
    """Return the slots M of a memory, of the size that the settings ask for.

    Args:
        info: facts of the stream.
        size: `strategy.memory_size`, samples.
        per: `strategy.per`, what they are counted for: ``all`` there are, each ``task``, each ``class``, or ``both``:
            each class of each task, of the whole stream.

    Raises:
        ConfigError: `size` is not positive, or `per` unknown.
    """
    expect(size > 0, "strategy.memory_size", "> 0", size)
    expect(per in PER, "strategy.per", f"in {list(PER)}", per)
    return size * groups_of(info, per)


class Memory(nn.Module):
    """M slots, each a sample with named fields; the state is the buffers of those names and `filled`.

    Subclasses say where new samples go (`add`). Shapes never change, and nothing branches on data, so that a population
    of memories runs under `torch.func.vmap`.

    Args:
        capacity: slots M.
        fields: one prototype a field: its shape and dtype without the slot dimension.

    Attributes:
        filled: (M,) bool, the slots that hold a sample.
    """

    filled: Tensor

    def __init__(self, capacity: int, fields: Mapping[str, Tensor]) -> None:
        super().__init__()
        expect(capacity > 0, "strategy.memory_size", "> 0", capacity)
        self.capacity = capacity
        self.draws = ""  # ends the names of its draws; of two memories of a strategy each needs its own
        self.names: tuple[str, ...] = ()
        for name, prototype in fields.items():
            self.keep(name, prototype)
        self.register_buffer("filled", torch.zeros(capacity, dtype=torch.bool))

    def keep(self, name: str, prototype: Tensor) -> None:
        """Add a field to the slots; see `fields`."""
        self.names = (*self.names, name)
        self.register_buffer(name, prototype.new_zeros((self.capacity, *prototype.shape)))

    def __getitem__(self, name: str) -> Tensor:
        """Return a field of all slots: (M, ...)."""
        return self.get_buffer(name)

    def add(self, values: Fields, key: Tensor, group: Tensor | None = None) -> None:
        """Offer a batch of samples, in order.

        Args:
            values: (B, ...) for every field.
            key: () int64, the step's key.
            group: (B,) int64, the group (class or task) of each sample; None where the memory has one group.
        """
        raise NotImplementedError(f"{type(self).__name__} is filled at the end of tasks")

    def write(self, slots: Tensor, keep: Tensor, values: Fields) -> None:
        """Write samples into slots as if one after another: where two want a slot, the later one has it.

        Args:
            slots: (B,) int64.
            keep: (B,) bool, False for samples that are not stored.
            values: (B, ...) for every field.
        """
        if readable(keep):  # most samples of a long stream are not stored, and reading which ones is free
            kept = keep.nonzero()[:, 0]
            source = kept[~_beaten(slots[kept])]
            for name in self.names:
                self[name][slots[source]] = values[name][source].to(self[name].dtype)
            self.filled[slots[source]] = True
            return
        index = torch.arange(len(slots), device=slots.device)
        wins = keep & ~_beaten(torch.where(keep, slots, -1 - index))
        # Samples that are not stored repeat the write of one that is: equal writes may come in any order.
        source = torch.where(wins, index, torch.where(wins, index, -1).amax().clamp_min(0))
        target = slots.clamp(0, self.capacity - 1)[source]
        some = wins.any()
        for name in self.names:
            buffer = self[name]
            buffer[target] = torch.where(some, values[name][source].to(buffer.dtype), buffer[target])
        self.filled[target] = self.filled[target] | some

    def sample(
        self, n: int, key: Tensor, weights: Tensor | None = None, replace: bool = False, purpose: str = "replay"
    ) -> tuple[Fields, Tensor]:
        """Draw n samples.

        Args:
            n: how many; without replacement at most M.
            key: () int64, the step's key.
            weights: (M,) relative chance of each slot, or None for equal chances; without replacement the draws are
                successive (Efraimidis and Spirakis 2006).
            replace: True draws with replacement.
            purpose: name of the draw; two draws of a step need two names.

        Returns:
            the fields (n, ...) and valid (n,) bool: False where fewer than n samples are stored; such rows repeat valid
            ones, so that batch statistics are those of samples.
        """
        chance = self.filled.to(torch.float32) if weights is None else self.filled * weights
        if replace:
            slots = self.draw(n, key, chance, purpose)
            return self.read(slots), self.filled[slots]
        slots, valid = self.distinct(n, key, chance, purpose)
        return self.read(repeated(slots, valid)), valid

    def distinct(self, n: int, key: Tensor, chance: Tensor, purpose: str) -> tuple[Tensor, Tensor]:
        """Draw min(n, M) slots without replacement by relative `chance` (M,); return them and which are filled."""
        waiting = -torch.log1p(-uniform(key, (self.capacity,), purpose + self.draws)) / chance
        score, slots = torch.where(self.filled, waiting, torch.inf).topk(min(n, self.capacity), largest=False)
        return slots, torch.isfinite(score)

    def draw(self, n: int, key: Tensor, chance: Tensor, purpose: str) -> Tensor:
        """Draw n slots with replacement, each with probability `chance` (M,) over its sum: (n,) int64."""
        edges = chance.cumsum(0)
        where = uniform(key, (n,), purpose + self.draws) * edges[-1]
        return (edges[None, :] <= where[:, None]).sum(1).clamp_max(self.capacity - 1)

    def read(self, slots: Tensor) -> Fields:
        """Return the fields of slots (n,): (n, ...) each."""
        return {name: self[name].index_select(0, slots) for name in self.names}

    def balance(self, group: Tensor, groups: int) -> Tensor:
        """Return weights (M,) that give every group present the same chance in `sample`; group (M,) in [0, groups)."""
        member = (group[:, None] == torch.arange(groups, device=group.device)) & self.filled[:, None]
        return 1 / member.sum(0).clamp_min(1)[group]


def _beaten(slots: Tensor) -> Tensor:
    """Return which slots (B,) come again later: (B,) bool."""
    index = torch.arange(len(slots), device=slots.device)
    return ((slots[None, :] == slots[:, None]) & (index[None, :] > index[:, None])).any(1)


class Shares(Memory):
    """A memory cut into equal shares, one a group, that counts the samples offered to each.

    Args:
        capacity: slots M; each group has M // groups, and the remainder stays empty.
        fields: see `Memory`.
        groups: number of groups (1, or the classes or tasks of the stream).

    Attributes:
        seen: (groups,) int64, samples offered so far.
    """

    seen: Tensor

    def __init__(self, capacity: int, fields: Mapping[str, Tensor], groups: int = 1) -> None:
        rule = f"to give at least {groups} slots in all, one a group"
        expect(capacity >= groups, "strategy.memory_size", rule, capacity)
        super().__init__(capacity, fields)
        self.groups, self.share = groups, capacity // groups
        self.register_buffer("seen", torch.zeros(groups, dtype=torch.long))

    def count(self, group: Tensor) -> Tensor:
        """Count a batch (B,) of groups; return how many of its group came up to and including each sample: (B,)."""
        index = torch.arange(len(group), device=group.device)
        before = (group[None, :] == group[:, None]) & (index[None, :] <= index[:, None])
        number = self.seen[group] + before.sum(1)
        self.seen += (group[:, None] == torch.arange(self.groups, device=group.device)).sum(0)
        return number

    def place(self, number: Tensor, key: Tensor) -> Tensor:
        """Return the place (B,) inside the share for the samples that came as the `number`-th (B,); >= share: none."""
        raise NotImplementedError

    def add(self, values: Fields, key: Tensor, group: Tensor | None = None) -> None:
        """Offer a batch of samples, in order; see `Memory.add`."""
        if self.groups == 1:
            size = len(values[self.names[0]])
            place = self.place(self.seen + torch.arange(1, size + 1, device=self.seen.device), key)
            self.seen += size
            self.write(place, place < self.share, values)
        else:
            assert group is not None, "a memory of several groups needs those of the samples"
            place = self.place(self.count(group), key)
            self.write(group * self.share + place, place < self.share, values)


def repeated(slots: Tensor, valid: Tensor) -> Tensor:
    """Return slots (n,) of which the first ones are `valid` (n,), with those in the place of the others."""
    index = torch.arange(len(slots), device=slots.device)
    return slots[torch.where(valid, index, index % valid.sum().clamp_min(1))]


def recalled(batch: Batch, fields: Fields, valid: Tensor) -> Batch:
    """Return recalled samples (n, ...) as a batch; where none is `valid` (n,), samples of `batch` stand for them."""
    own = torch.arange(len(valid), device=valid.device) % len(batch.y)

    def choose(stored: Tensor, present: Tensor) -> Tensor:
        if readable(valid) and valid.any():
            return stored.to(present.dtype)
        return torch.where(valid.any(), stored.to(present.dtype), present[own])

    x, y = choose(fields["x"], batch.x), choose(fields["y"], batch.y)
    return Batch(x, y, choose(fields["task"], batch.task), batch.key)


def join(batch: Batch, fields: Fields, valid: Tensor) -> Batch:
    """Return a batch (B + n) of the incoming samples followed by recalled ones; see `recalled`."""
    past = recalled(batch, fields, valid)
    x, y = torch.cat([batch.x, past.x]), torch.cat([batch.y, past.y])
    return Batch(x, y, torch.cat([batch.task, past.task]), batch.key)
