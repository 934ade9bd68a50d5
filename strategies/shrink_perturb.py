"""Shrink and perturb: pull the weights towards zero and add noise, so that the network can learn again."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.seeding import generator, normal, seeded
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

WHEN = ("task", "step")
NOISES = ("fresh", "gaussian")


class ShrinkPerturb(Strategy):
    """theta <- shrink * theta + perturb * noise, before every new task or after every step.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        shrink: factor on the weights, in [0, 1]; the paper tunes it on a grid and shows .6 a good middle between tasks.
            After every step, weight decay of rate w is 1 - lr * w (Dohare et al. 2024).
        perturb: scale of the noise, >= 0; .01 in the paper between tasks.
        when: ``task`` (Ash and Adams) or ``step`` (Dohare et al. 2024, Loss of plasticity in deep continual learning).
        noise: ``fresh`` (a newly initialised network, as in the authors' code) or ``gaussian`` (N(0, 1), as the paper
            writes it; the only one for ``step``).

    The authors begin with a new optimiser after it: `training.optimizer_state=reset`.
    """

    paper = Paper("On warm-starting neural network training", 2020, "https://arxiv.org/abs/1910.08475")
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    neutral: ClassVar[Mapping[str, Any] | None] = {"shrink": 1.0, "perturb": 0.0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        shrink: float = 0.6,
        perturb: float = 0.01,
        when: str = "task",
        noise: str = "fresh",
    ) -> None:
        super().__init__(learner, info)
        expect(0 <= shrink <= 1, "strategy.shrink", "in [0, 1]", shrink)
        expect(perturb >= 0, "strategy.perturb", ">= 0", perturb)
        expect(when in WHEN, "strategy.when", f"in {list(WHEN)}", when)
        known = NOISES if when == "task" else NOISES[1:]
        expect(noise in known, "strategy.noise", f"in {list(known)} for strategy.when={when}", noise)
        self.shrink, self.perturb, self.when, self.noise = shrink, perturb, when, noise

    @torch.no_grad()
    def begin_task(self, task: Task) -> None:
        """Shrink and perturb between tasks."""
        if self.when != "task" or task.index == 0:
            return
        k, seed = task.index, self.info.seed
        with seeded(seed, "shrink_perturb", k):
            fresh = dict(self.learner.fresh().named_parameters())
        draw = generator(seed, "perturb", k)
        for name, p in self.learner.named_parameters():
            noise = torch.randn(p.shape, generator=draw).to(p.device) if self.noise == "gaussian" else fresh[name]
            p.copy_(self.shrink * p + self.perturb * noise)

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Shrink and perturb after the optimiser's step."""
        if self.when == "step":
            parameters = list(self.learner.parameters())
            sizes = [p.numel() for p in parameters]
            noise = torch.split(self.perturb * normal(batch.key, (sum(sizes),), "perturb"), sizes)
            for p, own in zip(parameters, noise, strict=True):
                p.mul_(self.shrink).add_(own.view_as(p))
