"""Nearest class mean: classify by the closest mean of features."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl import objectives
from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.strategy import Network, Paper
from cl.streams.base import StreamInfo, Task, TrainingView
from cl.streams.data import TrainingData
from strategies.frozen import Frozen

SPACES = ("features", "inputs")
UNSEEN = objectives.MASKED / 10  # a class without a mean loses to any class with one, and beats a masked output


class NCM(Frozen):
    """Keep one mean feature vector a class and give a sample the class of the nearest mean.

    The backbone is trained by cross-entropy for the first `after` tasks and then frozen: 0 for a pre-trained (or
    random) backbone, 1 to learn features on the first task, a large number to keep it plastic, in which case the means
    of earlier classes go stale as the features drift. Means are taken over a task's training split at its end; when the
    last of the tasks that train the backbone ends, those of all of them are taken anew with the features to stay (which
    looks at their data again). Where tasks have a class in common, they are merged by the number of samples. That is no
    way to learn the same classes in several domains, so `domain` is refused; in ``task`` with shared labels the means
    are merged all the same.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        after: tasks that train the backbone.
        normalise: True scales features and means to unit length (cosine; as iCaRL does), False is Euclidean.
        space: ``features`` of the learner, or ``inputs``: the inputs themselves (pixels), without any network.
    """

    paper = Paper(
        "Distance-based image classification: generalizing to new classes at near-zero cost",
        2013,
        "https://doi.org/10.1109/TPAMI.2013.83",
    )
    rebuilt: ClassVar[tuple[str, ...]] = ("frozen", "base")
    scenarios: ClassVar[tuple[str, ...]] = ("task", "class")
    neutral: ClassVar[Mapping[str, Any] | None] = None
    mean: Tensor
    count: Tensor

    def __init__(
        self, learner: Learner, info: StreamInfo, after: int = 1, normalise: bool = False, space: str = "features"
    ) -> None:
        super().__init__(learner, info, after)
        expect(space in SPACES, "strategy.space", f"in {list(SPACES)}", space)
        expect(space == "features" or after == 0, "strategy.after", "0 where strategy.space is inputs", after)
        self.normalise, self.space = normalise, space
        self.__dict__["sees"] = "past" if after > 1 else "current"  # speaks for the class
        self.base: list[Task] = []  # whose statistics are taken anew when the present task ends
        if not isinstance(learner.head, nn.Linear):
            raise ConfigError(f"Expected `learner.head` a linear layer over features, got {learner.head}")
        expect(info.target == "class", "stream", "with one label a sample for ncm", info.target)
        numbers = space == "features" or info.vocabulary == 0
        expect(numbers, "strategy.space", "'features' where inputs are tokens", space)
        width = math.prod(info.input_shape) if space == "inputs" else learner.head.in_features
        self.register_buffer("mean", torch.zeros(info.n_classes, width))
        self.register_buffer("count", torch.zeros(info.n_classes))

    def grow(self, k: int) -> None:
        """Freeze the whole network with the backbone: the head is not used."""
        super().grow(k)
        if self.frozen:
            self.learner.requires_grad_(False)

    def training_data(self, stream: TrainingView, k: int) -> TrainingData:
        """Return task k, or nothing where there is nothing to train."""
        self.base = [stream[j] for j in range(self.after)] if k == self.after - 1 > 0 else []
        return TrainingData([]) if self.frozen else super().training_data(stream, k)

    def features(self, x: Tensor) -> Tensor:
        """Return the features that are averaged and compared: (B, D)."""
        found = x.flatten(1).to(self.mean.dtype) if self.space == "inputs" else self.learner.features(x)
        return F.normalize(found, dim=1) if self.normalise else found

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Take the task's samples into the statistics, or those of all tasks that trained the backbone."""
        if self.base:  # what is there was taken of features that have changed since
            self.forget()
        for part in self.base or [task]:
            self.take(part)
        self.base = []

    def forget(self) -> None:
        """Empty the statistics."""
        self.mean.zero_()
        self.count.zero_()

    def take(self, task: Task) -> None:
        """Take a task's samples into the statistics."""
        for batch in task.train.in_order(1000):
            self.observe(self.features(batch.x), batch.y)

    def observe(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Merge features z (B, D) of classes y (B,) into the means.

        Returns:
            what a covariance needs: deviations from the batch's own class means (B, D), the step from the old means to
            the batch's (C, D), and its weight n m / (n + m) for n old and m new samples (C,).
        """
        member = F.one_hot(y, len(self.count)).to(z.dtype)
        new = member.sum(0)
        batch_mean = member.T @ z / new.clamp_min(1)[:, None]
        step = torch.where(new[:, None] > 0, batch_mean - self.mean, 0.0)
        total = (self.count + new).clamp_min(1)
        weight = self.count * new / total
        self.mean += step * (new / total)[:, None]
        self.count += new
        return z - batch_mean[y], step, weight

    def scores(self, z: Tensor) -> Tensor:
        """Return minus the squared distance of features z (B, D) to each mean: (B, C)."""
        mean = F.normalize(self.mean, dim=1) if self.normalise else self.mean
        return -torch.cdist(z, mean, compute_mode="donot_use_mm_for_euclid_dist").square()

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Score the classes that have a mean."""
        scores = torch.where(self.count > 0, self.scores(self.features(x)), UNSEEN)
        return objectives.mask_logits(scores, self.allowed_at_test(task))

    def network(self, task: int | None) -> Network | None:
        """Return the learner where its features are compared."""
        return Network(self.learner) if self.space == "features" else None
