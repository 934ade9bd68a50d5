"""Experience replay: learn from the incoming batch and from samples of the past at once."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.build import Conditions
from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.memory import (
    SELECTIONS,
    Balanced,
    Memory,
    Reservoir,
    Ring,
    augmented,
    groups_of,
    join,
    kept_inputs,
    sample_fields,
    slots,
)
from cl.memory.base import Fields
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo

MEMORIES = ("reservoir", "ring", "balanced")
WEIGHTINGS = ("mean", "sum", "share", "tasks")


class ER(Strategy):
    """Experience replay (Chaudhry et al. 2019) from a memory that is filled while the stream flows.

    Args:
        learner, info: see `Strategy`.
        memory_size: samples kept; see `per`.
        per: what `memory_size` is counted for: ``all`` there are, each ``task``, each ``class``, or ``both``: each
            class of each task. The memory has room for the whole stream from the start.
        memory: ``reservoir`` (every sample seen has the same chance to be in it), ``ring`` (the last ones) or
            ``balanced`` (equal shares of the groups seen so far, a uniform sample of each).
        groups: what a reservoir or ring is cut into, in equal and fixed shares: ``none``, ``class``, ``task`` or
            ``both`` (the classes of each task, one share a pair that occurs: the paper's ring where tasks share
            labels); the remainder of the memory over the shares stays empty. A balanced memory balances ``class``
            (also for ``none``), ``task`` or ``both``.
        replay_batch: samples recalled a step; None = as many as the incoming batch, 0 = none (fine-tuning).
        recall_from: ``all`` that is stored, or the ``earlier`` tasks alone (code of Aljundi et al. 2019).
        draw: ``uniform``, or ``balanced``: every class in memory has the same chance.
        weighting: ``mean``: of the losses of both batches together; ``sum``: current + w replay, each a mean;
            ``share``: (1 - w) current + w replay; ``tasks``: 1/k current + (1 - 1/k) replay at task k (van de Ven
            et al. 2022).
        replay_weight: w of ``sum`` (>= 0) and ``share`` (in [0, 1]).

    Where the stream augments, samples are kept without it and augmented anew whenever they are recalled; where a task
    changes its images after that (a permutation, a rotation), they are kept as the network saw them.

    Differs from the paper: batch and replay go through the network in one forward pass, here and in DER, DER++ (its
    logits), ER-ACE and MIR, some of whose authors pass them one by one: that matters with batch normalisation.
    """

    paper: ClassVar[Paper | None] = Paper(
        "On Tiny Episodic Memories in Continual Learning", 2019, "https://arxiv.org/abs/1902.10486"
    )
    protects: ClassVar[bool | tuple[str, ...]] = True
    neutral: ClassVar[dict[str, Any] | None] = {"replay_batch": 0}
    small: ClassVar[dict[str, Any]] = {"memory_size": 60}

    memory: Memory
    only_with: ClassVar[Conditions] = {
        **{name: {"replay_batch": "not 0"} for name in ("memory_size", "memory", "draw", "weighting")},
        "replay_weight": {"weighting": ("sum", "share"), "replay_batch": "not 0"},
    }

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        per: str = "all",
        memory: str = "reservoir",
        groups: str = "none",
        replay_batch: int | None = None,
        draw: str = "uniform",
        weighting: str = "mean",
        replay_weight: float = 1.0,
        recall_from: str = "all",
    ) -> None:
        super().__init__(learner, info)
        online, labelled = info.scenario == "online", info.target == "class"
        self.groups = "class" if memory == "balanced" and groups == "none" else groups
        shares = {"none": True, "class": labelled, "task": not online, "both": labelled and not online}
        if memory in SELECTIONS:
            raise ConfigError(
                f"Expected `strategy.memory` in {list(MEMORIES)}, got {memory!r}; samples chosen when a task ends are "
                f"strategy=rehearsal strategy.keep={memory}"
            )
        for name, value, known in (
            ("memory", memory, MEMORIES),
            ("groups", self.groups, tuple(name for name, there in shares.items() if there)),
            ("recall_from", recall_from, ("all",) if online else ("all", "earlier")),
            ("draw", draw, ("uniform", "balanced") if labelled else ("uniform",)),
            ("weighting", weighting, WEIGHTINGS[:3] if online else WEIGHTINGS),
        ):
            here = f"in scenario {info.scenario!r} with targets of kind {info.target!r}"
            expect(value in known, f"strategy.{name}", f"in {list(known)} {here}", value)
        expect(replay_batch is None or replay_batch >= 0, "strategy.replay_batch", ">= 0 or null", replay_batch)
        high = 1.0 if weighting == "share" else float("inf")
        expect(0 <= replay_weight <= high, "strategy.replay_weight", f"in [0, {high}]", replay_weight)
        self.replay_batch, self.draw = replay_batch, draw
        self.weighting, self.replay_weight = weighting, replay_weight
        self.shards = weighting != "mean" and replay_batch is not None  # the draw must not depend on the part
        self.recall_from = recall_from
        n = groups_of(info, "all" if self.groups == "none" else self.groups)
        kind = {"reservoir": Reservoir, "ring": Ring, "balanced": Balanced}[memory]
        stage = {"stage": torch.zeros((), dtype=torch.long)} if recall_from == "earlier" else {}
        self.memory = kind(slots(info, memory_size, per), sample_fields(info) | stage, n)

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the weighted loss () of the incoming and the recalled samples, in one forward pass."""
        if self.replay_batch == 0:
            return super().loss(batch)
        return self.replayed(batch, *self.recall(batch))

    def replayed(self, batch: Batch, fields: Fields, valid: Tensor) -> Tensor:
        """Return the weighted loss () of a batch and of the recalled samples (n, ...) that are `valid` (n,)."""
        both = join(batch, fields, valid)
        losses = self.per_sample(self.logits(both.x, both.task), both)
        size, n = len(batch.y), valid.sum()
        current, replay = losses[:size].mean(), (losses[size:] * valid).sum() / n.clamp_min(1)
        if self.weighting == "sum":
            return current + self.replay_weight * replay
        share = {
            "mean": n / (size + n),
            "share": (n > 0) * self.replay_weight,
            "tasks": (n > 0) * (1 - 1 / (self.tasks_seen + 1)),
        }[self.weighting]
        return (1 - share) * current + share * replay

    def recall(self, batch: Batch) -> tuple[Fields, Tensor]:
        """Return the samples to replay and which of them are valid; see `Memory.sample`."""
        n = len(batch.y) if self.replay_batch is None else self.replay_batch
        fields, valid = self.memory.sample(n, batch.key, self.chances())
        return augmented(self.info, fields, batch.key, "replay" + self.memory.draws), valid

    def chances(self) -> Tensor | None:
        """Return the relative chance of each slot to be recalled: (M,), or None where all have the same."""
        weights = self.memory.balance(self.memory["y"], self.info.n_classes) if self.draw == "balanced" else None
        if self.recall_from == "all":
            return weights
        earlier = (self.memory["stage"] < self.tasks_seen).to(torch.float32)
        return earlier if weights is None else earlier * weights

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Offer the batch to the memory."""
        self.memory.add(self.kept(batch, aux), batch.key, self.group_of(batch))

    def group_of(self, batch: Batch) -> Tensor | None:
        """Return the group of each sample, (B,), or None where the memory has one."""
        if self.groups in ("none", "class"):
            return batch.y if self.groups == "class" else None
        task = self.tasks_seen.expand(len(batch.y))
        if self.groups == "task":
            return task
        pairs = self.task_classes.flatten().cumsum(0) - 1  # numbers those that occur: (K * C,)
        return pairs[task * self.info.n_classes + batch.y]

    def kept(self, batch: Batch, aux: Aux) -> Fields:
        """Return what is stored of a batch: (B, ...) for every field of the memory."""
        return {
            "x": kept_inputs(self.info, batch),
            "y": batch.y,
            "task": batch.task,
            "stage": self.tasks_seen.expand(len(batch.y)),
        }
