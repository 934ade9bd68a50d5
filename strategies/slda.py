"""Streaming linear discriminant analysis on the features of a frozen backbone."""

from typing import ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.learners.base import Learner
from cl.strategy import Paper
from cl.streams.base import StreamInfo, Task
from strategies.ncm import NCM

COVARIANCES = ("empirical", "oas")


class SLDA(NCM):
    """Class means and one shared covariance, updated sample by sample; a linear classifier follows in closed form.

    W = Lambda mu_c, b = -1/2 mu_c Lambda mu_c, Lambda = [(1 - shrinkage) Sigma + shrinkage I]^-1 (paper, section 3).

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        after: tasks that train the backbone, whose means and covariance are taken together at the end of the last
            (the paper's base initialisation); see `NCM`.
        normalise, space: see `NCM`.
        shrinkage: weight of the identity, in (0, 1]; 1e-4 in the paper.
        plastic: True updates the covariance on every task, False only on the base tasks (the first, if `after` is 0).
        covariance: how that of the base tasks is estimated: ``empirical``, or ``oas``, shrunk by the oracle
            approximating formula (Chen, Wiesel, Eldar, Hero 2010), as the authors' code does; later tasks add to it
            either way.

    Differs from the paper: updates are merged exactly batch by batch (Chan, Golub, LeVeque 1979), so that the result
    does not depend on the order of samples; the paper's update of Sigma is the same up to order 1 / samples.
    """

    paper = Paper(
        "Lifelong machine learning with deep streaming linear discriminant analysis",
        2020,
        "https://arxiv.org/abs/1909.01520",
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    protects: ClassVar[bool] = True
    scatter: Tensor
    scattered: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        after: int = 1,
        normalise: bool = False,
        shrinkage: float = 1e-4,
        plastic: bool = True,
        space: str = "features",
        covariance: str = "empirical",
    ) -> None:
        super().__init__(learner, info, after, normalise, space)
        expect(0 < shrinkage <= 1, "strategy.shrinkage", "in (0, 1]", shrinkage)
        expect(covariance in COVARIANCES, "strategy.covariance", f"in {list(COVARIANCES)}", covariance)
        self.shrinkage, self.plastic, self.covariance = shrinkage, plastic, covariance
        features = self.mean.shape[1]
        self.register_buffer("scatter", torch.zeros(features, features))
        self.register_buffer("scattered", torch.zeros(()))  # samples in `scatter`
        self.register_buffer("weight", torch.zeros_like(self.mean))
        self.register_buffer("bias", torch.zeros(info.n_classes))

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Update means and covariance, and solve for the classifier."""
        super().end_task(task)
        if self.covariance == "oas" and task.index == max(self.after, 1) - 1:
            self.scatter.copy_(self.scattered * oas(self.scatter / self.scattered.clamp_min(1), self.scattered))
        covariance = self.scatter / self.scattered.clamp_min(1)
        eye = torch.eye(len(covariance), device=covariance.device)
        shrunk = (1 - self.shrinkage) * covariance + self.shrinkage * eye
        self.weight.copy_(torch.linalg.solve(shrunk, self.mean.T).T)
        self.bias.copy_(-0.5 * (self.weight * self.mean).sum(1))

    def forget(self) -> None:
        """Empty the statistics, the covariance included."""
        super().forget()
        self.scatter.zero_()
        self.scattered.zero_()

    def take(self, task: Task) -> None:
        """Take a task's samples into the means, and into the covariance where it still moves."""
        moving = self.plastic or task.index < max(self.after, 1)
        for batch in task.train.in_order(1000):
            inside, step, weight = self.observe(self.features(batch.x), batch.y)
            if moving:
                self.scatter += inside.T @ inside + (step * weight[:, None]).T @ step
                self.scattered += len(batch.y)

    def scores(self, z: Tensor) -> Tensor:
        """Return the linear discriminants of features z (B, D): (B, C)."""
        return z @ self.weight.T + self.bias


def oas(covariance: Tensor, samples: Tensor) -> Tensor:
    """Return a covariance (D, D) of `samples` () shrunk towards a multiple of the identity (Chen et al. 2010, eq. 23).

    As scikit-learn computes it, with the terms in 2 / D left out.
    """
    size = len(covariance)
    mean, square = covariance.trace() / size, covariance.square().mean()
    spread = (samples + 1) * (square - mean.square() / size)
    weight = torch.where(spread > 0, (square + mean.square()) / spread.clamp_min(1e-30), 1.0).clamp_max(1.0)
    return (1 - weight) * covariance + weight * mean * torch.eye(size, device=covariance.device)
