"""Rehearsal: samples chosen when a task ends are learned again together with the later tasks."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.batch import Batch
from cl.build import Conditions
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import SELECTIONS, Exemplars, groups_of, sample_fields, slots, splits
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task, TrainingView
from cl.streams.data import TrainingData
from strategies.er import ER


class Rehearsal(ER):
    """Rehearsal from exemplars (Robins 1995; "naive rehearsal" of Hsu et al. 2018, "ER" of van de Ven et al. 2022).

    Args:
        learner, info: see `Strategy`.
        memory_size: samples kept; see `per`.
        per: what `memory_size` is counted for: ``all`` there are, shared equally by the groups so far (each gives up
            samples when new ones come); or each ``task``, each ``class`` or ``both`` (each class of each task), of
            which every group has a fixed share.
        groups: ``task``, or ``class`` (of each task, where tasks share their labels).
        keep: which samples of a group: ``first``, ``last``, ``random``, ``herding`` (Rebuffi et al. 2017)
            or ``unit_herding`` (toward the mean brought to length one).
        replay: ``step`` recalls a batch each step; ``epoch`` mixes the memory into the epoch's data, repeated
            (new samples // samples in memory) times (Hsu et al. 2018).
        replay_batch, draw, weighting, replay_weight: see `ER`; for ``step`` alone.

    Differs from the paper: none.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Re-evaluating Continual Learning Scenarios", 2018, "https://arxiv.org/abs/1810.12488"
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    neutral: ClassVar[dict[str, Any] | None] = {"replay": "step", "replay_batch": 0}

    memory: Exemplars
    only_with: ClassVar[Conditions] = {
        **{name: {"replay": ("step",)} for name in ("replay_batch", "draw", "weighting")},
        "replay_weight": {"replay": ("step",), "weighting": ("sum", "share")},
    }

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 1100,
        per: str = "all",
        groups: str = "task",
        keep: str = "random",
        replay: str = "epoch",
        replay_batch: int | None = None,
        draw: str = "uniform",
        weighting: str = "mean",
        replay_weight: float = 1.0,
    ) -> None:
        super().__init__(
            learner,
            info,
            memory_size,
            per,
            replay_batch=replay_batch,
            draw=draw,
            weighting=weighting,
            replay_weight=replay_weight,
        )
        for name, value, known in (
            ("groups", groups, ("task", "class")),
            ("keep", keep, SELECTIONS),
            ("replay", replay, ("epoch", "step")),
        ):
            expect(value in known, f"strategy.{name}", f"in {list(known)}", value)
        if info.target != "class":
            expect(groups == "task", "strategy.groups", f"'task' for targets of kind {info.target!r}", groups)
        self.groups, self.keep, self.replay, self.replaying = groups, keep, replay, False
        n, size = groups_of(info, "task" if groups == "task" else "both"), slots(info, memory_size, per)
        self.memory = Exemplars(size, sample_fields(info), n, None if per == "all" else size // n)

    def grow(self, k: int) -> None:
        """Recall batches from the second task on; before it there is nothing to recall."""
        self.replaying = self.replay == "step" and k > 0

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the loss () of `ER`, or of the batch alone where the memory is part of the epoch."""
        return super().loss(batch) if self.replaying else Strategy.loss(self, batch)

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Keep nothing while the stream flows."""

    def training_data(self, stream: TrainingView, k: int) -> TrainingData:
        """Return task k, and for ``epoch`` the memory, repeated to weigh as much."""
        data = stream.current(k)
        stored = int(self.memory.filled.sum())
        if self.replay == "step" or stored == 0:
            return data
        parts = splits(self.memory, stream.later)
        times = max(1, len(data) // stored)
        return TrainingData([*data.parts, *parts], [*data.repeats, *[times] * len(parts)])

    def end_task(self, task: Task) -> None:
        """Choose the task's exemplars."""
        with torch.no_grad():
            self.memory.choose(task, self.info, self.groups, self.keep, self._features, later=self.replay == "epoch")

    def _features(self, x: Tensor) -> Tensor:
        return F.normalize(self.learner.features(x))
