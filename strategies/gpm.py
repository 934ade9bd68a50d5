"""Gradient projection memory (Saha, Garg and Roy 2021): steps orthogonal to the inputs that each layer has seen."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import ConfigError, expect
from cl.importance import layers
from cl.learners.base import Learner
from cl.learners.layers import hold_statistics
from cl.parameters import PerParameter
from cl.projection import leading_directions
from cl.seeding import generator
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

PROJECTS = ("gradient", "step")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def each(value: float | Sequence[float], n: int) -> Sequence[float]:
    """Return what is given for each of n layers, or for all of them at once."""
    return [value] * n if isinstance(value, float | int) else value


class GPM(Strategy):
    """Each layer's gradient is projected onto the complement of the inputs (or patches) that matter to earlier tasks.

    After each task the singular vectors of a layer's inputs at some samples are added, until they hold a share of the
    energy; a step along the rest leaves the layer's answers to those inputs as they are. Separate heads are not
    projected, shared ones are; with ``project=step`` the heads of other tasks stay as they are. Normalisation layers
    learn on the first task alone, running statistics included, unless nothing is held: then it is fine-tuning with them
    too.

    Differs from the paper: the projection is kept as a matrix (D, D) a layer, whose shape does not depend on the data;
    a bias counts as the weight of a constant input, where the paper's networks have none; ``project=step`` also
    projects the step that the optimiser makes of the gradients, which changes nothing in plain SGD, the paper's
    optimiser, and keeps momentum and Adam from leaving the complement. The direction with which the first task crosses
    the threshold is held too, which the authors' code leaves out.

    Args:
        learner: see `Strategy`; made of linear, convolution and normalisation layers.
        info: see `Strategy`.
        threshold: share of the energy to hold after the first task, in [0, 1]; one number, or one for each layer.
        increase: how much the threshold grows with each task, >= 0.
        samples: training samples a task whose inputs are taken, > 0; one number, or one for each layer (the paper's
            runs on CIFAR-100 take fewer for convolutions, whose patches are many).
        project: ``gradient`` (paper) or ``step``.

    Raises:
        ConfigError: the learner has trainable parameters in other layers.
    """

    paper = Paper("Gradient projection memory for continual learning", 2021, "https://arxiv.org/abs/2103.09762")
    rebuilt: ClassVar[tuple[str, ...]] = ("first",)
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"threshold": 0.0, "increase": 0.0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        threshold: float | Sequence[float] = 0.97,
        increase: float = 0.003,
        samples: int | Sequence[int] = 300,
        project: str = "step",
    ) -> None:
        super().__init__(learner, info)
        expect(all(0 <= t <= 1 for t in each(threshold, 1)), "strategy.threshold", "in [0, 1]", threshold)
        expect(all(n > 0 for n in each(samples, 1)), "strategy.samples", "> 0", samples)
        expect(increase >= 0, "strategy.increase", ">= 0", increase)
        expect(project in PROJECTS, "strategy.project", f"in {list(PROJECTS)}", project)
        self.threshold, self.increase, self.samples = threshold, increase, samples
        self.holds = increase > 0 or max(each(threshold, 1)) > 0  # anything at all
        self.first = True  # no task came before
        self.before = PerParameter(learner) if project == "step" else None
        self.projections = nn.Module()
        self.projected: list[str] = []  # names of layers
        self.first_task_only: list[str] = []  # names of parameters
        heads = set(learner.head.modules())
        for name, layer in learner.named_modules():
            trained = [n for n, p in layer.named_parameters(recurse=False) if p.requires_grad]
            if layers.supported(layer) and getattr(layer, "groups", 1) == 1:
                if "weight" in trained and not (self.head == "multi" and layer in heads):
                    self.projected.append(name)
                    inputs = layer.get_parameter("weight")[0].numel() + len(trained) - 1
                    self.projections.register_buffer(name.replace(".", "/"), torch.zeros(inputs, inputs))
            elif isinstance(layer, NORMS):
                self.first_task_only += [f"learner.{name}.{n}" for n in trained if self.holds]
            elif trained:
                raise ConfigError(
                    "Expected `learner` of linear, convolution and normalisation layers for gradient projection, got "
                    f"{type(layer).__name__}"
                )
        if not self.projected:
            name = type(learner).__name__
            raise ConfigError(f"Expected `learner` with a layer that tasks share for gpm, got {name} without any")
        n = len(self.projected)
        for field, given in (("threshold", threshold), ("samples", samples)):
            expect(len(each(given, n)) == n, f"strategy.{field}", f"one number, or {n} for {n} layers", given)

    def grow(self, k: int) -> None:
        """Note whether a task came before."""
        self.first = k == 0

    def train(self, mode: bool = True) -> "GPM":
        """Keep running statistics as the first task left them."""
        super().train(mode)
        if self.holds and not self.first:
            hold_statistics(self.learner)
        return self

    def projection(self, name: str) -> Tensor:
        """Return the projection onto the inputs a layer must answer as before: (D, D), D with a constant for a bias."""
        return self.projections.get_buffer(name.replace(".", "/"))

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Return the part of each layer's gradient that is orthogonal to the inputs it has seen."""
        if self.before is not None:
            self.before.copy_from(self.learner)
        return self.orthogonal(grads)

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Take back the part of the step that is not orthogonal to them."""
        if self.before is not None:
            step = {f"learner.{n}": p - self.before[n] for n, p in self.learner.named_parameters()}
            kept = self.orthogonal(step)
            if self.holds and self.head == "multi":  # moments and weight decay move heads that have no gradient
                own = self.learner.head_rows(self.task_classes[self.tasks_seen])
                heads = [n for n in kept if n.startswith("learner.head.")]
                kept |= {n: kept[n] * own.reshape(-1, *(1 for _ in kept[n].shape[1:])) for n in heads}
            for name, p in self.learner.named_parameters():
                p.sub_(step[f"learner.{name}"] - kept[f"learner.{name}"])

    def orthogonal(self, change: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what is left of a change of parameters (by full name) once each layer's is projected."""
        out = dict(change)
        for name in self.projected:
            leaves = [n for n in (f"learner.{name}.weight", f"learner.{name}.bias") if n in change]
            rows = torch.cat([change[n].flatten(1) if change[n].dim() > 1 else change[n][:, None] for n in leaves], 1)
            rows = rows - rows @ self.projection(name)
            size = change[leaves[0]][0].numel()
            for leaf, part in zip(leaves, (rows[:, :size], rows[:, -1]), strict=False):
                out[leaf] = part.reshape(change[leaf].shape)
        return out | {n: change[n] * (self.tasks_seen == 0) for n in self.first_task_only}

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Hold the inputs that this task's samples give to each layer."""
        found = self.moments(task)
        for (name, moments), threshold in zip(found.items(), each(self.threshold, len(found)), strict=True):
            known = self.projection(name)
            known.copy_(leading_directions(moments, known, min(threshold + self.increase * task.index, 1.0)))

    def moments(self, task: Task) -> dict[str, Tensor]:
        """Return the sum of x x^T over the inputs (or patches) x of each layer: (D, D) float64."""
        order = torch.randperm(len(task.train), generator=generator(self.info.seed, "gpm", task.index))
        found = {name: torch.zeros_like(self.projection(name), dtype=torch.float64) for name in self.projected}
        wanted = dict(zip(self.projected, each(self.samples, len(found)), strict=True))
        seen = size = 0  # samples before the present batch, and in it

        def record(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0][: len(args[0]) * max(0, min(wanted[name] - seen, size)) // size]
            rows = x.flatten(0, -2) if isinstance(layer, nn.Linear) else layers.unfold(layer, x).mT.flatten(0, 1)
            if rows.shape[1] < len(found[name]):
                rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
            found[name] += rows.double().T @ rows.double()

        hooks = [self.learner.get_submodule(n).register_forward_pre_hook(partial(record, n)) for n in self.projected]
        for batch in task.train.subset(order[: max(wanted.values())].to(task.train.device)).in_order(50):
            size = len(batch.y)
            self("logits", batch.x, batch.task)
            seen += size
        for hook in hooks:
            hook.remove()
        return found
