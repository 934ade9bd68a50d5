"""What a run is measured against: short loops in plain PyTorch, the same arithmetic and kernels, data in memory."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.streams.base import Stream

BATCH, TEST_BATCH, MASKED = 128, 1000, -1e9
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Memory:
    """A stream as float tensors.

    Attributes:
        train: inputs (n, D) and labels (n,) of every task.
        test: the same for the test splits.
        masks: (K, C) bool, the outputs of every task.
    """

    train: list[Split]
    test: list[Split]
    masks: Tensor

    @classmethod
    def of(cls, stream: Stream) -> "Memory":
        """Read a whole stream."""
        k = len(stream)
        splits = [stream[i].train for i in range(k)], [stream.test(i) for i in range(k)]
        train, test = (
            [(d.inputs(torch.arange(len(d), device=d.device)).flatten(1), d.labels) for d in part] for part in splits
        )
        masks = torch.zeros(k, stream.info.n_classes, dtype=torch.bool, device=train[0][0].device)
        for i, classes in enumerate(stream.info.task_classes):
            masks[i, list(classes)] = True
        return cls(train, test, masks)


class Bare:
    """Fine-tuning of an MLP 400-400 with Adam, and evaluation of all tasks after each.

    Args:
        memory: the data.
        seed: of the weights and of the order of samples.
    """

    def __init__(self, memory: Memory, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.memory = memory
        x = memory.train[0][0]
        self.net = nn.Sequential(*self.layers(x.shape[1])).to(x.device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3, fused=True)
        self.accuracy: list[list[float]] = []

    def layers(self, inputs: int) -> list[nn.Module]:
        """Return the layers of the network."""
        return [nn.Linear(inputs, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)]

    def run(self) -> None:
        """Train all tasks, one epoch each."""
        self.evaluate()
        for k, (x, y) in enumerate(self.memory.train):
            losses = []
            order = torch.randperm(len(x), device=x.device)
            for i in range(0, len(x), BATCH):
                rows = order[i : i + BATCH]
                loss = self.loss(k, x[rows], y[rows])
                self.optimizer.zero_grad()
                torch.autograd.backward(loss)
                self.optimizer.step()
                losses.append(loss.detach())
            torch.stack(losses).tolist()
            self.end(k)
            self.evaluate()

    def logits(self, k: int, x: Tensor) -> Tensor:
        """Return the logits of one task: (B, C)."""
        return torch.where(self.memory.masks[k], self.net(x), MASKED)

    def loss(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss () of a batch."""
        return F.cross_entropy(self.logits(k, x), y)

    def end(self, k: int) -> None:
        """Do what follows a task."""

    @torch.inference_mode()
    def evaluate(self) -> None:
        """Measure accuracy and loss on every task."""
        means = []
        for k, (x, y) in enumerate(self.memory.test):
            total = torch.zeros(2, device=x.device)
            for i in range(0, len(x), TEST_BATCH):
                scores, labels = self.logits(k, x[i : i + TEST_BATCH]), y[i : i + TEST_BATCH]
                right = (scores.argmax(1) == labels).sum()
                total += torch.stack([right, F.cross_entropy(scores, labels, reduction="sum")])
            means.append(total / len(x))
        self.accuracy.append(torch.stack(means)[:, 0].tolist())


class BareCNN(Bare):
    """Fine-tuning of two convolutions of 32 and 64 channels and a layer of 128 units, on images of one channel."""

    def layers(self, inputs: int) -> list[nn.Module]:
        """Return the layers of the network."""
        side = math.isqrt(inputs)
        found: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
        for planes, width in ((1, 32), (32, 64)):
            found += [nn.Conv2d(planes, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return [*found, nn.Flatten(), nn.Linear(64 * (side // 4) ** 2, 128), nn.ReLU(), nn.Linear(128, 10)]


class BareEWC(Bare):
    """EWC: the penalty of all earlier tasks as one quadratic form, the exact Fisher information over all samples."""

    def __init__(self, memory: Memory, seed: int = 0, strength: float = 100.0) -> None:
        super().__init__(memory, seed)
        self.strength = strength
        self.fisher = [torch.zeros_like(p) for p in self.net.parameters()]
        self.anchor = [p.detach().clone() for p in self.net.parameters()]

    def loss(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss () of a batch with the penalty."""
        penalty = torch.zeros((), device=x.device)
        for p, importance, anchor in zip(self.net.parameters(), self.fisher, self.anchor, strict=True):
            penalty = penalty + (importance * (p - anchor).square()).sum()
        return super().loss(k, x, y) + self.strength * penalty

    def end(self, k: int) -> None:
        """Add the Fisher information of a task: for a linear layer the squared gradients are delta^2 x^2."""
        x, _ = self.memory.train[k]
        found = [torch.zeros_like(p) for p in self.net.parameters()]
        for i in range(0, len(x), 256):
            inputs, outputs = [], []
            h = x[i : i + 256]
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    inputs.append(h)
                h = layer(h)
                if isinstance(layer, nn.Linear):
                    outputs.append(h)
            chances = F.log_softmax(torch.where(self.memory.masks[k], h, MASKED), 1)
            for label in self.memory.masks[k].nonzero()[:, 0]:
                weight = chances[:, label].detach().exp()[:, None]
                deltas = torch.autograd.grad(chances[:, label].sum(), outputs, retain_graph=True)
                for j, (delta, before) in enumerate(zip(deltas, inputs, strict=True)):
                    square = delta.square() * weight
                    found[2 * j] += square.T @ before.detach().square()
                    found[2 * j + 1] += square.sum(0)
        with torch.no_grad():
            for p, new, old, anchor in zip(self.net.parameters(), found, self.fisher, self.anchor, strict=True):
                new /= len(x)
                total = old + new
                anchor += torch.where(total > 0, new / total, 1.0) * (p - anchor)
                old.copy_(total)


class BareReplay(Bare):
    """Twice the samples a step: the batch, and as many drawn from all that was seen."""

    def loss(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss () of the batch and as many samples of an earlier task."""
        old_x, old_y = self.memory.train[k // 2]
        rows = torch.randint(len(old_x), (len(x),), device=x.device)
        allowed = torch.cat([self.memory.masks[k].expand(len(x), -1), self.memory.masks[k // 2].expand(len(x), -1)])
        logits = torch.where(allowed, self.net(torch.cat([x, old_x[rows]])), MASKED)
        return F.cross_entropy(logits, torch.cat([y, old_y[rows]]))
