"""Orthogonal gradient descent (Farajtabar et al. 2020): steps that leave the outputs of earlier samples as they are."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import one_hot

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.objectives import IGNORE
from cl.projection import complement, flatten, orthonormal, unflatten
from cl.seeding import generator
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

OUTPUTS = ("label", "mean", "all")
PROJECTS = ("gradient", "step")


class OGD(Strategy):
    """Gradients are projected onto the complement of the gradients of the outputs at samples of earlier tasks.

    After each task the gradients of outputs at a few samples are made orthonormal to those kept and stored; to first
    order a step along the rest does not change these outputs.

    Differs from the paper: ``project=step`` also projects the step that the optimiser makes of the gradients, which
    changes nothing in plain SGD, the paper's optimiser, and keeps momentum and Adam from leaving the complement. Where
    every step has a label, the outputs of a sample are those at one of its labelled steps, drawn.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        samples: samples a task whose gradients are stored, >= 0 (0 is fine-tuning); each costs the memory of a network.
        outputs: whose gradient: ``label`` (the true class's logit: OGD-GTL), ``mean`` of the logits (OGD-AVE) or
            ``all`` of the task's, one by one (OGD-ALL).
        project: ``gradient`` (paper) or ``step``.
    """

    paper = Paper("Orthogonal gradient descent for continual learning", 2020, "https://arxiv.org/abs/1910.07104")
    scenarios = ("task", "domain", "class")
    protects = ("task", "domain")
    neutral: ClassVar[dict[str, Any]] = {"samples": 0}
    basis: Tensor
    before: Tensor

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        samples: int = 200,
        outputs: str = "label",
        project: str = "step",
    ) -> None:
        super().__init__(learner, info)
        expect(samples >= 0, "strategy.samples", ">= 0", samples)
        expect(outputs in OUTPUTS, "strategy.outputs", f"in {list(OUTPUTS)}", outputs)
        expect(info.target != "real", "stream", "with classes for ogd", info.target)
        expect(project in PROJECTS, "strategy.project", f"in {list(PROJECTS)}", project)
        self.samples, self.outputs, self.steps = samples, outputs, project == "step"
        trained = {f"learner.{n}": p.numel() for n, p in learner.named_parameters() if p.requires_grad}
        self.names = list(trained)
        self.register_buffer("basis", torch.zeros(0, sum(trained.values())))
        self.register_buffer("before", torch.zeros(sum(trained.values()) if self.steps else 0))

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Return the part of the gradients that is orthogonal to all stored ones."""
        if self.steps:
            self.before.copy_(flatten(dict(self.named_parameters()), self.names))
        return unflatten(complement(flatten(grads, self.names), self.basis), grads, self.names)

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Take back the part of the step along the stored gradients."""
        if self.steps:
            parameters: dict[str, Tensor] = dict(self.named_parameters())
            step = flatten(parameters, self.names) - self.before
            along = unflatten(step - complement(step, self.basis), parameters, self.names)
            for name in self.names:
                parameters[name].sub_(along[name])

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Store the gradients of the outputs at samples of this task, if any comes after it."""
        draw = generator(self.info.seed, "ogd", task.index)
        order = torch.randperm(len(task.train), generator=draw)
        chosen = order[: self.samples].to(task.train.device)
        if len(chosen) == 0 or task.index + 1 == self.info.n_tasks:
            return
        batch = task.train.batch(chosen, torch.zeros((), dtype=torch.long, device=task.train.device), augment=False)
        step = None
        if self.info.target == "steps":
            labelled = (batch.y != IGNORE).cpu()  # one of them each, whatever padding follows
            rank = (torch.rand(len(labelled), generator=draw, dtype=torch.double) * labelled.sum(1)).long()
            step = ((labelled.cumsum(1) - 1 == rank[:, None]) & labelled).int().argmax(1).to(batch.y.device)
        self.basis = torch.cat([self.basis, orthonormal(self.output_gradients(batch, step), self.basis)])

    def growth(self) -> int:
        """Return the bytes of the stored gradients that are still missing, of tasks with all their samples."""
        outputs = [1] * self.info.n_tasks
        if self.outputs == "all":
            met = self.task_classes if self.head == "multi" else self.task_classes.cumsum(0) > 0
            outputs = met.sum(1).tolist() if self.head != "single" else [self.info.n_classes] * self.info.n_tasks
        missing = max(0, self.samples * sum(outputs[:-1]) - len(self.basis))
        return missing * self.basis.shape[1] * self.basis.element_size()

    def output_gradients(self, batch: Batch, step: Tensor | None = None) -> Tensor:
        """Return the gradients of the chosen outputs at every sample (N, P); of sequences at the given `step` (B,)."""
        allowed = self.allowed(batch.task)
        allowed = torch.ones_like(self.active) if allowed is None else allowed
        allowed = allowed.expand(len(batch.y), self.info.n_classes)
        sample = torch.arange(len(batch.y), device=batch.y.device)
        if self.outputs == "label":
            y = batch.y if step is None else batch.y[sample, step]
            weights = one_hot(y, self.info.n_classes).float()
        elif self.outputs == "mean":
            weights = allowed / allowed.sum(1, keepdim=True)
        else:
            sample, output = allowed.nonzero(as_tuple=True)
            weights = one_hot(output, self.info.n_classes).float()
        if step is not None:
            weights = one_hot(step[sample], batch.y.shape[1])[..., None] * weights[:, None]  # (N, T, C)
        values = {n: p.detach() for n, p in self.named_parameters() if n in self.names}

        def weighted(values: dict[str, Tensor], x: Tensor, task: Tensor, weights: Tensor) -> Tensor:
            logits: Tensor = functional_call(self, values, ("logits", x[None], task[None]))
            return (logits[0] * weights).sum()

        found = vmap(grad(weighted), (None, 0, 0, 0))(values, batch.x[sample], batch.task[sample], weights)
        return torch.cat([found[n].reshape(len(sample), -1) for n in self.names], 1)
