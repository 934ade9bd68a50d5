"""One run over several processes: every process learns from a part of each batch, and all stay equal.

Started by ``torchrun``; gloo on CPUs, NCCL on GPUs. Every process holds the whole state, draws the same numbers and
takes its part of the global batch; gradients are summed before they are edited, clipped and used, and what follows a
step (memories, path integrals) sees the global batch in every process. So the result is that of one process on the same
batches, up to the order of sums (1e-5 relative).
"""

import atexit
import functools
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import ConfigError
from cl.learners.dropout import Dropout
from cl.strategy import Aux, Strategy, overrides
from cl.update import Updater


class World:
    """The processes of a run.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's part of a batch, and its share of the samples."""
        n = len(batch.y)
        first, last = n * self.rank // self.size, n * (self.rank + 1) // self.size
        stored = None if batch.stored is None else batch.stored[first:last]
        part = Batch(batch.x[first:last], batch.y[first:last], batch.task[first:last], batch.key, stored)
        return part, (last - first) / n

    def agree(self, value: Any) -> Any:
        """Return what the first process holds (plain types and tensors), in every process."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def whole(self, value: Tensor, n: int) -> Tensor:
        """Put together the parts (n * rank // size, ...) that the processes hold of a tensor with n rows."""
        sizes = [n * (r + 1) // self.size - n * r // self.size for r in range(self.size)]
        room = value.new_zeros((max(sizes), *value.shape[1:]))
        room[: len(value)] = value
        parts = [torch.empty_like(room) for _ in sizes]
        dist.all_gather(parts, room)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def launched() -> bool:
    """Return True in a process that ``torchrun`` started beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@functools.cache
def join(device: str) -> World:
    """Meet the other processes, once.

    Args:
        device: type of the device, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: the environment that ``torchrun`` sets is not complete.
    """
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise ConfigError(f"Expected the environment variable `{name}` beside WORLD_SIZE; start with torchrun")
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        atexit.register(_leave)
    return World(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """End the threads of the group: one that is left when the interpreter ends aborts the process (exit code -6)."""
    if dist.is_initialized():
        dist.destroy_process_group()


def check(strategy: Strategy) -> None:
    """Refuse what would not give the result of one process.

    Raises:
        ConfigError: says what and why.
    """
    name = type(strategy).__name__
    if overrides(strategy, "step"):
        raise ConfigError(f"Expected `strategy` one that takes the common step under torchrun, got {name}")
    if overrides(strategy, "loss") and not strategy.shards:
        raise ConfigError(
            f"Expected `strategy` one whose loss is a mean over the batch (`shards`) under torchrun, got {name}"
        )
    for module in strategy.learner.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError("Expected `learner.norm` in ['none', 'layer', 'group'] under torchrun, got 'batch'")
        if isinstance(module, Dropout) and module.p > 0:
            raise ConfigError(f"Expected `learner.dropout` 0 under torchrun, got {module.p}")


class SharedUpdater(Updater):
    """The optimisation step of several processes.

    Args:
        world: the processes.
        arguments: see `Updater`.
    """

    def __init__(self, world: World, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.world = world

    def training_loss(self, strategy: Strategy, batch: Batch) -> tuple[Tensor, Aux]:
        """Return (this process's share of the loss, aux of the whole batch)."""
        part, share = self.world.part(batch)
        if len(part.y) == 0:
            raise ConfigError(
                f"Expected `training.batch_size` so that every process has a sample, got a batch of {len(batch.y)} for "
                f"{self.world.size} processes; training.drop_last=true leaves out small batches"
            )
        loss, aux = super().training_loss(strategy, part)
        rows = len(part.y)
        gathered = {n: self.world.whole(t, len(batch.y)) if t.shape[:1] == (rows,) else t for n, t in aux.items()}
        return share * loss, gathered

    def __call__(self, strategy: Strategy, batch: Batch) -> Tensor:
        """Take one step and return the loss () of the whole batch."""
        loss = super().__call__(strategy, batch)
        dist.all_reduce(loss)
        return loss

    def collect(self) -> None:
        """Sum the gradients over the processes, all in one message."""
        held = [p for p in self.parameters.values() if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in held if p.grad is not None])
        dist.all_reduce(flat)
        start = 0
        for p in held:
            p.grad = flat[start : start + p.numel()].reshape(p.shape)
            start += p.numel()


def updater(world: World | None) -> Callable[..., Updater]:
    """Return what makes the step of a run: for one process, or for several."""
    return Updater if world is None else functools.partial(SharedUpdater, world)
