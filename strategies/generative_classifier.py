"""Generative classifier: one generative model a class, and Bayes' rule."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import expect
from cl.generative import VAE, generator_for
from cl.learners.base import Learner
from cl.objectives import mask_logits
from cl.seeding import generator
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

SCORINGS = ("trained", "gaussian")


class GenerativeClassifier(Strategy):
    """Class-incremental learning with generative classifiers (van de Ven, Li and Tolias 2021).

    A variational autoencoder is trained on each class alone, so that no class can disturb another. A sample gets the
    class under which it is most likely, log p(x | c) estimated by importance sampling; classes are equally likely a
    priori. The learner itself is not used.

    Args:
        learner, info: see `Strategy`.
        hidden, latent, likelihood: one class's model, see `cl.generative.VAE` (the paper, MNIST: 85, 85 and 5).
        scoring: p(x | z) under which inputs are classified: ``trained`` (that of the models) or ``gaussian`` (unit
            variance around their mean, also where they are trained as Bernoulli: the authors' code).
        samples: importance samples L for each input and class (the paper: 10,000; its code's default: 50).

    Differs from the paper: the classes of a task are trained side by side instead of one after another; the same L
    normal draws serve all inputs.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Class-Incremental Learning with Generative Classifiers", 2021, "https://arxiv.org/abs/2104.10093"
    )
    rebuilt: ClassVar[tuple[str, ...]] = ("present",)
    scenarios: ClassVar[tuple[str, ...]] = ("task", "class")
    protects: ClassVar[bool] = True

    noise: Tensor
    known: Tensor

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        hidden: Sequence[int] = (85, 85),
        latent: int = 5,
        likelihood: str = "bernoulli",
        scoring: str = "trained",
        samples: int = 50,
    ) -> None:
        super().__init__(learner, info)
        expect(scoring in SCORINGS, "strategy.scoring", f"in {list(SCORINGS)}", scoring)
        expect(samples > 0, "strategy.samples", "> 0", samples)
        expect(info.target == "class", "stream", "with one label a sample for generative_classifier", info.target)
        learner.requires_grad_(False)
        self.models = nn.ModuleList(generator_for(info, hidden, latent, likelihood) for _ in range(info.n_classes))
        draws = torch.randn(samples, latent, generator=generator(info.seed, "importance"))
        self.register_buffer("noise", draws)
        self.register_buffer("known", torch.zeros(info.n_classes, dtype=torch.bool))
        self.scoring = None if scoring == "trained" else scoring
        self.present: tuple[int, ...] = ()

    def model(self, c: int) -> VAE:
        """Return the model of class c."""
        found = self.models[c]
        assert isinstance(found, VAE)
        return found

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the sum over the task's classes of the mean loss of each model on its own samples, in nats a value."""
        total = torch.zeros((), device=batch.x.device)
        for c in self.present:
            own = batch.y == c
            losses = self.model(c).losses(batch.x, batch.key, f"code/{c}") / batch.x[0].numel()
            total = total + (losses * own).sum() / own.sum().clamp_min(1)
        return total

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return minus the lower bound of each sample under the model of its class, in nats: (B,)."""
        found = torch.stack([self.model(c).losses(batch.x, batch.key, f"code/{c}") for c in self.present], 1)
        own = torch.stack([batch.y == c for c in self.present], 1)
        return (found * own).sum(1)

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Return log p(x | c) in nats: (B, C)."""
        models = [self.model(c) for c in range(self.info.n_classes)]
        scores = torch.stack([model.log_evidence(x, self.noise, self.scoring) for model in models], 1)
        allowed = self.allowed_at_test(task)
        return mask_logits(scores, self.known if allowed is None else self.known & allowed)

    def grow(self, k: int) -> None:
        """Train the models of task k's classes alone."""
        self.present = self.info.task_classes[k]
        for c in range(self.info.n_classes):
            self.model(c).requires_grad_(c in self.present)

    def begin_task(self, task: Task) -> None:
        """Note that the task's classes are known."""
        self.model(0).check(task.train.inputs(torch.arange(min(100, len(task.train)), device=self.known.device)))
        self.known.logical_or_(self.task_classes[task.index])
