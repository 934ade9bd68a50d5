"""Deep generative replay: a generator learns the stream beside the network and dreams the past for both."""

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.build import Conditions
from cl.errors import expect
from cl.generative import VAE, generator_for
from cl.learners.base import Learner
from cl.objectives import IGNORE, distillation_loss, mask_logits
from cl.seeding import integers
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

TARGETS = ("hard", "soft")
WEIGHTINGS = ("tasks", "sum", "share")
GENERATORS = ("connected", "recurrent")


class DGR(Strategy):
    """Deep generative replay (Shin et al. 2017), with a variational autoencoder (van de Ven et al. 2020, 2022).

    Before each task the generator and the network are copied. In the task both learn from new data and from what the
    old generator draws; the network is told what the old network says of it.

    Args:
        learner, info: see `Strategy`.
        hidden, latent, likelihood: the generator, see `cl.generative.VAE`.
        generator: ``connected``, or ``recurrent`` layers over the steps, for streams of sequences.
        replay_batch: samples generated a step; None = as many as the incoming batch.
        targets: ``hard`` (the old network's most likely class; Shin et al.) or ``soft`` (distillation; van de Ven).
        temperature: T > 0 of soft targets.
        squared_temperature: True multiplies their loss by T^2 (Hinton et al. 2015).
        weighting: ``tasks``: 1/k of the loss on new data and (1 - 1/k) of the loss on replay at task k = 1, 2...;
            ``sum``: new + w replay; ``share``: (1 - w) new + w replay.
        replay_weight: w of ``sum`` (>= 0) and ``share`` (in [0, 1]).

    Differs from the paper: an autoencoder in place of Shin et al.'s adversarial generator. Its loss is divided by the
    number of input values; it shares the network's optimizer. Where every step has a label, the old network labels all
    steps of what is generated but padding, also those for which the stream asks for no answer.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Continual Learning with Deep Generative Replay", 2017, "https://arxiv.org/abs/1705.08690"
    )
    rebuilt: ClassVar[tuple[str, ...]] = ("k",)
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    protects: ClassVar[bool] = True
    bare: ClassVar[bool] = True

    old: Tensor
    only_with: ClassVar[Conditions] = {
        **{name: {"targets": ("soft",)} for name in ("temperature", "squared_temperature")},
        "replay_weight": {"weighting": ("sum", "share")},
    }

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        hidden: Sequence[int] = (400, 400),
        latent: int = 100,
        likelihood: str = "bernoulli",
        replay_batch: int | None = None,
        targets: str = "soft",
        temperature: float = 2.0,
        squared_temperature: bool = True,
        weighting: str = "tasks",
        replay_weight: float = 1.0,
        generator: str = "connected",
    ) -> None:
        super().__init__(learner, info)
        expect(replay_batch is None or replay_batch > 0, "strategy.replay_batch", "> 0 or null", replay_batch)
        expect(targets in TARGETS, "strategy.targets", f"in {list(TARGETS)}", targets)
        expect(temperature > 0, "strategy.temperature", "> 0", temperature)
        expect(weighting in WEIGHTINGS, "strategy.weighting", f"in {list(WEIGHTINGS)}", weighting)
        high = 1.0 if weighting == "share" else float("inf")
        expect(0 <= replay_weight <= high, "strategy.replay_weight", f"in [0, {high}]", replay_weight)
        expect(info.target != "real", "stream", "with classes for dgr", info.target)
        sequences = info.sequence and info.vocabulary == 0
        known = GENERATORS if sequences else GENERATORS[:1]
        expect(generator in known, "strategy.generator", f"in {list(known)} on this stream", generator)
        self.replay_batch, self.weighting, self.replay_weight = replay_batch, weighting, replay_weight
        self.targets, self.temperature = targets, temperature
        self.scale = temperature**2 if squared_temperature else 1.0
        self.generator = generator_for(info, hidden, latent, likelihood, generator == "recurrent")
        self.k = 0
        self.teacher: Learner | None = None
        self.dreamer: VAE | None = None
        self.register_buffer("old", torch.zeros(info.n_classes, dtype=torch.bool))

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the loss () of network and generator, on new data and on replay."""
        new = self.criterion(self.logits(batch.x, batch.task), batch) + self.generator_loss(batch.x, batch.key, "new")
        if self.teacher is None or self.dreamer is None:
            return new
        replay, teacher = self.dream(self.teacher, self.dreamer, batch)
        logits = self.logits(replay.x, replay.task)
        if self.targets == "hard":
            past = self.criterion(logits, replay)
        else:
            among, before = self.allowed(replay.task), self.allowed_before(replay.task)
            losses = distillation_loss(logits, teacher, self.temperature, among, before, self.real(replay.x))
            past = losses.mean() * self.scale
        past = past + self.generator_loss(replay.x, batch.key, "replay")
        if self.weighting == "tasks":
            return (new + self.k * past) / (self.k + 1)
        w = self.replay_weight
        return (new if self.weighting == "sum" else (1 - w) * new) + w * past

    def generator_loss(self, x: Tensor, key: Tensor, purpose: str) -> Tensor:
        """Return the generator's loss () in nats an input value."""
        return self.generator.losses(x, key, f"generator/{purpose}").mean() / x[0].numel()

    @torch.no_grad()
    def dream(self, teacher: Learner, dreamer: VAE, batch: Batch) -> tuple[Batch, Tensor]:
        """Return generated samples with the old network's labels and its logits, (n, C) or (n, T, C).

        Heads of tasks are drawn.
        """
        n = self.replay_batch or len(batch.y)
        x = dreamer.sample(n, batch.key, "dream")
        task = integers(batch.key, (n,), self.tasks_seen, "dream/task")
        logits: Tensor = teacher(x)
        y, real = mask_logits(logits, self.allowed_before(task)).argmax(-1), self.real(x)
        y = y if real is None else torch.where(real, y, IGNORE)
        return Batch(x, y, task, batch.key), logits

    def allowed_before(self, task: Tensor) -> Tensor | None:
        """Return the outputs that the old network had learned: (n, C) or (C,) bool, or None for all."""
        if self.head == "multi":
            return self.task_classes[task]
        return self.old if self.head == "growing" else None

    def grow(self, k: int) -> None:
        """Make room for the old network and the old generator from the second task on."""
        self.k = k
        if k == 1:
            self.teacher = copy.deepcopy(self.learner).requires_grad_(False).eval()
            self.dreamer = copy.deepcopy(self.generator).requires_grad_(False)

    def begin_task(self, task: Task) -> None:
        """Keep network and generator as they are."""
        self.generator.check(task.train.inputs(torch.arange(min(100, len(task.train)), device=self.old.device)))
        self.old.copy_(self.task_classes[: task.index].any(0))
        if self.teacher is not None and self.dreamer is not None:
            self.teacher.load_state_dict(self.learner.state_dict())
            self.dreamer.load_state_dict(self.generator.state_dict())

    def train(self, mode: bool = True) -> "DGR":
        """Set training mode for all but the old network."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self
