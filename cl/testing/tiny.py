"""Streams of seconds: noisy prototypes as 4 x 4 images, on which fine-tuning forgets; short sequences of each kind."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.engine import Engine
from cl.evaluator import EvaluationOptions
from cl.learners.base import Learner
from cl.learners.mlp import MLP
from cl.objectives import IGNORE
from cl.seeding import generator, seeded
from cl.strategy import Strategy
from cl.streams.base import Stream, StreamInfo, Task
from cl.streams.data import Data
from cl.training import TrainingOptions

SHAPE = (1, 4, 4)
KINDS = ("tokens", "padded", "steps", "real")
STEPS, VOCABULARY = 6, 9  # of `TinySequences`


class TinyStream(Stream):
    """Two classes a task, each a random prototype plus noise.

    Args:
        scenario: see `StreamInfo`.
        seed: root seed.
        tasks: number of tasks K.
        samples: training samples a class; half as many for testing.
        hide_tasks: True writes task id 0 into every batch: a strategy that uses ids it must not use then differs.
    """

    def __init__(
        self, scenario: str = "task", seed: int = 0, tasks: int = 3, samples: int = 40, hide_tasks: bool = False
    ) -> None:
        g = generator(seed, "tiny")
        classes = 2 * tasks
        total = samples + samples // 2
        prototypes = torch.rand(classes, 1, *SHAPE, generator=g)
        noise = 0.3 * torch.randn(classes, total, *SHAPE, generator=g)
        self._x = (prototypes + noise).clamp(0, 1).reshape(-1, *SHAPE)
        self._total, self._samples, self._hide = total, samples, hide_tasks
        shared = scenario == "domain"
        self.info = StreamInfo(
            scenario=scenario,
            n_tasks=tasks,
            n_classes=2 if shared else classes,
            task_classes=tuple((0, 1) if shared else (2 * k, 2 * k + 1) for k in range(tasks)),
            input_shape=SHAPE,
            seed=seed,
            shared_labels=shared,
        )
        self.class_names = tuple(tuple(str(c) for c in task) for task in self.info.task_classes)

    def _split(self, k: int, first: int, last: int) -> Data:
        index = torch.cat([torch.arange(c * self._total + first, c * self._total + last) for c in (2 * k, 2 * k + 1)])
        labels = torch.tensor(self.info.task_classes[k]).repeat_interleave(last - first)
        return Data(self._x, index, labels, 0 if self._hide else k)

    def __getitem__(self, k: int) -> Task:
        """Return task k."""
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        return Task(k % len(self), self.info.task_classes[k], self._split(k % len(self), 0, self._samples), None)

    def test(self, k: int) -> Data:
        """Return the test split of task k."""
        return self._split(k, self._samples, self._total)

    def fingerprint(self) -> str:
        """Return a hash of samples and labels."""
        return hashlib.sha256(self._x.numpy().tobytes() + repr(self.info).encode()).hexdigest()


class TinySequences(Stream):
    """Short sequences, two classes a task, of each kind that strategies meet.

    Args:
        kind: ``tokens`` (int64, one label a sample), ``padded`` (of different lengths), ``steps`` (padded, and one
            label a step) or ``real`` (numbers, of which the mean is asked for).
        scenario: see `StreamInfo`; ``domain`` or ``online`` for ``real``.
        seed: root seed.
        tasks: number of tasks K, up to 4.
        samples: training samples a task; half as many for testing.
        padding: steps of padding added behind the longest sequence.
    """

    def __init__(
        self,
        kind: str,
        scenario: str = "task",
        seed: int = 0,
        tasks: int = 2,
        samples: int = 24,
        padding: int = 0,
    ) -> None:
        shared, real = scenario in ("domain", "online"), kind == "real"
        classes = ((0,) if real else (0, 1),) * tasks if shared else tuple((2 * k, 2 * k + 1) for k in range(tasks))
        steps = STEPS + padding
        self.info = StreamInfo(
            scenario=scenario,
            n_tasks=tasks,
            n_classes=1 + max(max(own) for own in classes),
            task_classes=classes,
            input_shape=(steps, 1) if real else (steps,),
            seed=seed,
            shared_labels=shared,
            target="real" if real else "steps" if kind == "steps" else "class",
            sequence=True,
            vocabulary=0 if real else VOCABULARY,
            padded=kind in ("padded", "steps"),
        )
        self.class_names = tuple(tuple(str(c) for c in own) for own in classes)
        self._samples = samples
        self._splits = [self._draw(kind, k, samples + samples // 2, padding) for k in range(tasks)]

    def _draw(self, kind: str, k: int, n: int, padding: int) -> tuple[Tensor, Tensor]:
        """Return n samples of a task: a token says its label, 1 + 2 k or 2 + 2 k; y in the outputs of the task."""
        g = generator(self.info.seed, "tiny sequences", k)
        if kind == "real":
            x = torch.rand(n, STEPS, 1, generator=g) + k
            return F.pad(x, (0, 0, 0, padding)), x.mean(1)
        first = self.info.task_classes[k][0]
        labels = torch.randint(0, 2, (n, STEPS if kind == "steps" else 1), generator=g)
        x = (1 + 2 * k + labels).expand(n, STEPS)
        length = torch.randint(2, STEPS + 1, (n, 1), generator=g) if self.info.padded else STEPS
        there = torch.arange(STEPS) < length
        x = F.pad(torch.where(there, x, 0), (0, padding))
        y = F.pad(torch.where(there, first + labels, IGNORE), (0, padding), value=IGNORE)
        return x, y if kind == "steps" else first + labels[:, 0]

    def _split(self, k: int, first: int, last: int | None) -> Data:
        x, y = self._splits[k]
        index = torch.arange(len(x))[first:last]
        return Data(x, index, y[index], k)

    def __getitem__(self, k: int) -> Task:
        """Return task k."""
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        return Task(k % len(self), self.info.task_classes[k], self._split(k % len(self), 0, self._samples), None)

    def test(self, k: int) -> Data:
        """Return the test split of task k."""
        return self._split(k, self._samples, None)

    def fingerprint(self) -> str:
        """Return a hash of samples and labels."""
        digest = hashlib.sha256(repr(self.info).encode())
        for x, y in self._splits:
            digest.update(x.numpy().tobytes() + y.numpy().tobytes())
        return digest.hexdigest()


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Return the optimiser of the checks."""
    return torch.optim.Adam(parameters, lr=0.01)


def small_mlp(info: StreamInfo) -> Learner:
    """Return the learner of the checks: two hidden layers of 16 units."""
    return MLP(info.input_shape, info.n_classes, hidden=(16, 16))


def engine(
    make: Callable[..., Strategy],
    stream: Stream,
    make_learner: Callable[[StreamInfo], Learner] = small_mlp,
    pause: Callable[[Engine], None] | None = None,
    epochs: int = 4,
    **fields: Any,
) -> Engine:
    """Return a fresh engine for a strategy class on a stream."""
    with seeded(stream.info.seed, "learner"):
        learner = make_learner(stream.info)
    with seeded(stream.info.seed, "strategy"):
        strategy = make(learner, stream.info, **fields)
    options = TrainingOptions(epochs=epochs, batch_size=16)
    return Engine(strategy, stream, adam, options, EvaluationOptions(), pause=pause)


def train(make: Callable[..., Strategy], stream: Stream, **options: Any) -> Engine:
    """Train a strategy on a stream and return the engine after its last task; `options` as for `engine`."""
    made = engine(make, stream, **options)
    made.run()
    return made


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of what a module saves."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
