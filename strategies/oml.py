"""OML: learn, before the stream, a representation that online learning on top of it does not wreck."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.seeding import generator, seeded
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo, Task
from cl.streams.remote import Remote
from cl.streams.sources.base import Source
from cl.trajectories import renew, trajectory


class OML(Strategy):
    """Meta-train the lower blocks (representation) so that the upper ones (prediction) can learn sample by sample.

    Meta-training, before task 0: draw a trajectory (`classes` classes, `samples` of each, class after class) and begin
    with new weights for these classes in the head; take one SGD step on the prediction network for each sample of the
    trajectory; minimise, by Adam through these steps, the loss on other samples of the same classes (and on random
    ones) with respect to the representation and to where the prediction network starts (paper, algorithm 2). During
    the stream the representation is frozen.

    Args:
        learner: a learner of blocks (mlp, cnn, resnet).
        info: see `Strategy`.
        source: what to meta-train on, a source of images that are scaled to the stream's size (the paper: Omniglot), or
            None for the training data of task 0. Of images that the stream does not hold, as in the paper, whose
            characters of meta-training and of the stream differ; on the unit scale, whatever the stream's is.
        root: folder of data sets.
        download: True fetches what is missing there.
        plastic: blocks of the prediction network, besides the head; the paper's has two layers, its head included.
        meta_steps: steps of meta-training, >= 0.
        classes: classes of a trajectory.
        samples: samples of each class in a trajectory.
        held_out: other samples of each of its classes, of which the meta-loss is taken; as many as `samples` in the
            authors' code for the paper (oml_omniglot_paper.py).
        random: samples of all classes, none of them on the trajectory, of which it is taken too; none there, 15 in
            their later oml_omniglot.py (where no class of a trajectory can be among them).
        reset: True begins every trajectory with new rows in the head for its classes (normal, variance 2 / D), so that
            these cannot be learned by heart and the inner steps have to learn them.
        inner_rate: learning rate of the steps along a trajectory; .01 in the authors' code.
        meta_rate: learning rate of meta-training (Adam); 1e-4 in the paper.
        second_order: True differentiates through the inner gradients.
        freeze: False trains the representation during the stream too.

    Differs from the paper: `meta_steps` is smaller by default; the head of the stream starts as it was initialised. The
    paper draws all of the prediction network anew for every trajectory; its code, as here, the rows of the head alone.
    """

    paper = Paper("Meta-learning representations for continual learning", 2019, "https://arxiv.org/abs/1905.12588")
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    neutral: ClassVar[Mapping[str, Any] | None] = {"meta_steps": 0, "freeze": False}
    small: ClassVar[Mapping[str, Any]] = {"source": None, "meta_steps": 20, "meta_rate": 0.01, "classes": 2}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        source: Source | None = None,
        root: str = "~/.cache/lethe",
        download: bool = True,
        plastic: int = 1,
        meta_steps: int = 2000,
        classes: int = 3,
        samples: int = 5,
        held_out: int = 5,
        random: int = 0,
        reset: bool = True,
        inner_rate: float = 0.01,
        meta_rate: float = 1e-4,
        second_order: bool = True,
        freeze: bool = True,
    ) -> None:
        super().__init__(learner, info)
        blocks = len(learner.blocks)
        if type(learner).activations is not Learner.activations or not isinstance(learner.head, nn.Linear):
            found = type(learner).__name__
            raise ConfigError(f"Expected `learner` of plain blocks (mlp, cnn, resnet) for oml, got {found}")
        expect(0 <= plastic < blocks, "strategy.plastic", f"in [0, {blocks - 1}] for {blocks} blocks", plastic)
        for name, value in (("meta_steps", meta_steps), ("inner_rate", inner_rate), ("meta_rate", meta_rate)):
            expect(value >= 0, f"strategy.{name}", ">= 0", value)
        for name, value in (("classes", classes), ("samples", samples), ("held_out", held_out)):
            expect(value > 0, f"strategy.{name}", "> 0", value)
        expect(random >= 0, "strategy.random", ">= 0", random)
        self.source, self.root, self.download = source, Path(root).expanduser(), download
        self.lower = blocks - plastic
        upper = [m for block in learner.blocks[self.lower :] for m in block.modules()]
        single = meta_steps > 0 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in upper)
        rule = f"other than batch in the blocks of {type(learner).__name__} that oml trains on single samples"
        expect(not single, "learner.norm", rule, "batch")
        self.meta_steps, self.classes, self.samples = meta_steps, classes, samples
        self.held_out, self.random, self.reset = held_out, random, reset
        self.inner_rate, self.meta_rate, self.second_order, self.freeze = inner_rate, meta_rate, second_order, freeze

    def grow(self, k: int) -> None:
        """Freeze the representation."""
        for block in self.learner.blocks[: self.lower] if self.freeze else ():
            block.requires_grad_(False)

    def train(self, mode: bool = True) -> "OML":
        """Keep a frozen representation in evaluation mode."""
        super().train(mode)
        for block in self.learner.blocks[: self.lower] if self.freeze else ():
            block.eval()
        return self

    def begin_task(self, task: Task) -> None:
        """Meta-train before the first task."""
        if task.index > 0 or self.meta_steps == 0:
            return
        x, y = self.data(task)
        needed = self.samples + self.held_out
        members = [rows for c in torch.unique(y) if len(rows := (y == c).nonzero()[:, 0]) >= needed]
        expect(len(members) > 0, "strategy.samples + strategy.held_out", "at most the samples of a class", needed)
        with seeded(self.info.seed, "oml"):
            head = nn.Linear(self.learner.head.in_features, int(y.max()) + 1).to(x.device)  # type: ignore[arg-type]
        upper = Upper(self.learner, self.lower, head)
        lower = nn.Sequential(*self.learner.blocks[: self.lower])
        weights = [*(lower.requires_grad_(True)).parameters(), *upper.parameters()]
        optimizer = torch.optim.Adam(weights, lr=self.meta_rate)
        self.learner.train()
        for step in range(self.meta_steps):
            g = generator(self.info.seed, "oml", step)
            path, asked = trajectory(members, len(x), g, self.classes, self.samples, self.held_out, self.random)
            if self.reset:
                renew(head, torch.unique(y[path]), g)
            rows = torch.cat([path, asked])
            loss = self.meta_loss(lower(self.learner.arranged(x[rows])), y[rows], upper, len(path))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        self.grow(0)
        self.train()

    def meta_loss(self, z: Tensor, y: Tensor, upper: "Upper", steps: int) -> Tensor:
        """Take one step on each of the first `steps` samples (z (n, ...), y (n,)); return the loss () on the others."""
        fast: dict[str, Tensor] = dict(upper.named_parameters())
        for j in range(steps):
            loss = F.cross_entropy(functional_call(upper, fast, (z[j : j + 1],)), y[j : j + 1])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=self.second_order)
            fast = {n: w - self.inner_rate * g for (n, w), g in zip(fast.items(), grads, strict=True)}
        return F.cross_entropy(functional_call(upper, fast, (z[steps:],)), y[steps:])

    def data(self, task: Task) -> tuple[Tensor, Tensor]:
        """Return what to meta-train on: x (N, *input) as the network reads it, y (N,)."""
        device = self.active.device
        if self.source is None:
            return task.train.inputs(torch.arange(len(task.train), device=device)), task.train.labels
        table = self.source.load(self.root, self.download)
        images = table.train.x
        shape = self.info.input_shape
        expect(len(shape) == 3 and not isinstance(images, Remote), "stream", "images, to meta-train on images", shape)
        assert isinstance(images, Tensor)
        own = task.train.storage
        if isinstance(own, Tensor) and (own.dtype, own.shape[1:]) == (images.dtype, images.shape[1:]):
            known = {image.numpy().tobytes() for image in images.cpu()}
            seen = any(image.numpy().tobytes() in known for image in own[task.train.index].cpu())
            rule = "null or of other images than the first task's (of Omniglot: other `strategy.source.sets`)"
            expect(not seen, "strategy.source", rule, type(self.source).__name__)
        x = F.interpolate(images.float() / table.peak, size=shape[1:], mode="area")
        return x.mean(1, keepdim=True).expand(-1, *shape).to(device), table.train.y.to(device)


class Upper(nn.Module):
    """The prediction network: the learner's last blocks, its pooling and a head for meta-training.

    Args:
        learner: its blocks are shared.
        first: index of the first block.
        head: reads the features.
    """

    def __init__(self, learner: Learner, first: int, head: nn.Linear) -> None:
        super().__init__()
        self.blocks, self.pool, self.head = nn.Sequential(*learner.blocks[first:]), learner.pool, head

    def forward(self, z: Tensor) -> Tensor:
        """Return logits (B, C) from the representation z (B, ...)."""
        out: Tensor = self.head(self.pool(self.blocks(z)))
        return out
