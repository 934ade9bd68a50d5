"""GDumb: keep a balanced memory greedily, and train a new network on nothing else."""

from typing import ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import Balanced, sample_fields, slots, splits
from cl.seeding import generator, seeded, step_keys, uniform
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task, TrainingView
from cl.streams.data import TrainingData

CHUNK = 500  # samples offered to the memory at once


class GDumb(Strategy):
    """Greedy sampler and dumb learner (Prabhu et al. 2020): the question whether a method gains from its stream at all.

    The learning rate of the paper (SGD from .05 to .0005 by cosine annealing with warm restarts, batch 16; 128 passes
    for MNIST, 256 for CIFAR) is a matter of the optimizer, the scheduler (`restarts`, made anew for each task) and the
    training options; the crops of the authors' code (padding 4, for MNIST too) are one of the stream's augmentation.

    Args:
        learner, info: see `Strategy`.
        memory_size: samples kept, equal shares of the classes seen so far (of each task, where tasks share labels).
        per: what `memory_size` is counted for, see `ER`.
        passes: times the memory is seen in one epoch of the training options.
        cutmix: probability in [0, 1] that a batch is mixed by CutMix (Yun et al. 2019); images only.

    Differs from the paper: the network is trained after every task, where it may be asked; CutMix boxes keep their area
    (they are moved inside the image instead of being cut at its border).
    """

    paper: ClassVar[Paper | None] = Paper(
        "GDumb: A Simple Approach that Questions Our Progress in Continual Learning",
        2020,
        "https://www.ecva.net/papers/eccv_2020/papers_ECCV/papers/123470511.pdf",
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    protects: ClassVar[bool] = True
    small: ClassVar[dict[str, int]] = {"memory_size": 60}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 1000,
        per: str = "all",
        passes: int = 20,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__(learner, info)
        expect(passes > 0, "strategy.passes", "> 0", passes)
        expect(0 <= cutmix <= 1, "strategy.cutmix", "in [0, 1]", cutmix)
        expect(cutmix == 0 or len(info.input_shape) == 3, "strategy.cutmix", "0 where inputs are not images", cutmix)
        expect(info.target == "class", "stream", "with one label a sample for gdumb", info.target)
        self.passes, self.cutmix = passes, cutmix
        groups = info.n_classes * (info.n_tasks if info.shared_labels else 1)
        self.memory = Balanced(slots(info, memory_size, per), sample_fields(info), groups, newcomers=False)

    def grow(self, k: int) -> None:
        """Put a new network in place."""
        if k > 0:
            with seeded(self.info.seed, "network", k):
                self.learner = self.learner.fresh()

    def begin_task(self, task: Task) -> None:
        """Let the task's samples flow past the greedy sampler, in an order drawn by the seed."""
        data, k = task.train, task.index
        offset = k * self.info.n_classes if self.info.shared_labels else 0
        order = torch.randperm(len(data), generator=generator(self.info.seed, "flow", k)).to(data.device)
        keys = step_keys(self.info.seed, k, 0, len(order), data.device)
        for key, positions in zip(keys, torch.split(order, CHUNK), strict=False):
            x, y = data.kept(positions), data.labels[positions]
            self.memory.add({"x": x, "y": y, "task": torch.full_like(y, k)}, key, offset + y)

    def training_data(self, stream: TrainingView, k: int) -> TrainingData:
        """Return the memory, `passes` times."""
        parts = splits(self.memory, stream.later)
        return TrainingData(parts, [self.passes] * len(parts))

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the loss (), of mixed images where CutMix is on."""
        if self.cutmix == 0:
            return super().loss(batch)
        other = uniform(batch.key, batch.y.shape, "cutmix/partner").argsort()
        box = self.box(batch.key, batch.x.shape[-2], batch.x.shape[-1])
        logits = self.logits(torch.where(box, batch.x[other], batch.x), batch.task)
        partner = batch._replace(y=batch.y[other], task=batch.task[other])
        share = box.float().mean()
        return (1 - share) * self.criterion(logits, batch) + share * self.criterion(logits, partner)

    def box(self, key: Tensor, height: int, width: int) -> Tensor:
        """Return the pixels (H, W) bool to take from the partner: a box of uniform area, or none."""
        used, area, top, left = uniform(key, (4,), "cutmix/box").unbind()
        side = area.sqrt() * (used < self.cutmix)
        rows, columns = torch.arange(height, device=key.device), torch.arange(width, device=key.device)
        first_row, first_column = top * (1 - side) * height, left * (1 - side) * width
        inside_rows = (rows >= first_row) & (rows < first_row + side * height)
        return inside_rows[:, None] & (columns >= first_column) & (columns < first_column + side * width)
