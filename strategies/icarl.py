"""iCaRL: exemplars by herding, distillation of the old outputs, classification by the nearest mean of exemplars."""

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.batch import Batch
from cl.build import Conditions
from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.memory import SELECTIONS, Exemplars, sample_fields, slots, splits
from cl.objectives import full, mask_logits
from cl.strategy import Aux, Network, Paper, Strategy
from cl.streams.base import StreamInfo, Task, TrainingView
from cl.streams.data import TrainingData, Transform

CLASSIFIERS = ("exemplars", "head")


class ICaRL(Strategy):
    """Incremental classifier and representation learning (Rebuffi et al. 2017).

    New data and exemplars are trained together with one binary cross-entropy an output: new classes toward the label,
    old classes toward the sigmoid that the network gave before the task (algorithm 3). When a task ends, each class
    keeps the exemplars whose running mean follows the class mean best (algorithms 4 and 5).

    Args:
        learner, info: see `Strategy`.
        memory_size: exemplars kept; see `per`.
        per: what `memory_size` is counted for: ``all`` there are, shared equally by the classes so far; or each
            ``task``, each ``class`` or ``both`` (each class of each task), of which every class has a fixed share.
        keep: ``herding``; ``unit_herding``, toward the class mean brought to length one, as in the code of van de Ven
            et al.; or ``random``, ``first``, ``last``.
        classifier: ``exemplars`` (nearest mean), or ``head`` (largest output; the paper's hybrid 1).
        distillation: False trains old outputs toward the labels (the paper's hybrid 2, and with ``head`` hybrid 3).
        temperature: what the logits of the old network are divided by before their sigmoid, > 0; 1 in the paper, 2 in
            the code of van de Ven et al.

    Differs from the paper: class means are those of the network at the end of the last task.
    """

    paper: ClassVar[Paper | None] = Paper(
        "iCaRL: Incremental Classifier and Representation Learning", 2017, "https://arxiv.org/abs/1611.07725"
    )
    rebuilt: ClassVar[tuple[str, ...]] = ("later",)
    scenarios: ClassVar[tuple[str, ...]] = ("task", "class")
    protects: ClassVar[bool] = True
    small: ClassVar[dict[str, int]] = {"memory_size": 60}
    old: Tensor
    means: Tensor
    known: Tensor
    only_with: ClassVar[Conditions] = {"temperature": {"distillation": (True,)}}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 2000,
        per: str = "all",
        keep: str = "herding",
        classifier: str = "exemplars",
        distillation: bool = True,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(learner, info)
        for name, value, choices in (
            ("keep", keep, SELECTIONS),
            ("classifier", classifier, CLASSIFIERS),
        ):
            expect(value in choices, f"strategy.{name}", f"in {list(choices)}", value)
        expect(temperature > 0, "strategy.temperature", "> 0", temperature)
        expect(info.target == "class", "stream", "with one label a sample for icarl", info.target)
        self.keep, self.classifier, self.distillation, self.temperature = keep, classifier, distillation, temperature
        size = slots(info, memory_size, per)
        quota = None if per == "all" else size // info.n_classes
        self.memory = Exemplars(size, sample_fields(info), info.n_classes, quota)
        self.teacher: Learner | None = None
        self.later: dict[int, Transform | None] = {}  # how exemplars of each task become inputs
        if not isinstance(learner.head, nn.Linear):
            raise ConfigError(f"Expected `learner.head` a linear layer over features, got {learner.head}")
        self.register_buffer("means", torch.zeros(info.n_classes, learner.head.in_features))
        self.register_buffer("known", torch.zeros(info.n_classes, dtype=torch.bool))
        self.register_buffer("old", torch.zeros(info.n_classes, dtype=torch.bool))

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the binary cross-entropy (): a sum over outputs, a mean over samples."""
        logits = full(self.logits(batch.x, batch.task))
        targets = F.one_hot(batch.y, self.info.n_classes).to(logits.dtype)
        if self.teacher is not None and self.distillation:
            with torch.no_grad():
                targets = torch.where(self.old, (full(self.teacher(batch.x)) / self.temperature).sigmoid(), targets)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses if self.head == "single" else losses * self.active).sum(1).mean()

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Return minus the squared distance to each class's mean of exemplars, up to what all share: (B, C)."""
        if self.classifier == "head":
            return super().predict(x, task)
        scores = 2 * self.features(x) @ self.means.T - self.means.square().sum(1)
        allowed = self.allowed_at_test(task)
        return mask_logits(scores, self.known if allowed is None else self.known & allowed)

    def network(self, task: int | None) -> Network:
        """Return the learner, whose features are compared."""
        return Network(self.learner)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, D) at length one."""
        return F.normalize(self.learner.features(x))

    def grow(self, k: int) -> None:
        """Make room for the network before the task, from the second task on."""
        if k == 1:
            self.teacher = copy.deepcopy(self.learner).requires_grad_(False).eval()

    def begin_task(self, task: Task) -> None:
        """Keep the network as it is, and note which classes are old."""
        self.old.copy_(self.task_classes[: task.index].any(0))
        if self.teacher is not None:
            self.teacher.load_state_dict(self.learner.state_dict())

    def training_data(self, stream: TrainingView, k: int) -> TrainingData:
        """Return task k and the exemplars."""
        self.later = {j: stream.later(j) for j in range(k + 1)}
        return TrainingData([*stream.current(k).parts, *splits(self.memory, self.later.get)])

    def end_task(self, task: Task) -> None:
        """Choose the exemplars of the new classes, shrink the old ones, and take the means of all."""
        with torch.no_grad():
            self.memory.choose(task, self.info, "class", self.keep, self.features, later=True)
            for part in splits(self.memory, self.later.get):
                for c in torch.unique(part.labels):
                    exemplars = part.inputs((part.labels == c).nonzero()[:, 0])
                    self.means[c] = F.normalize(self.features(exemplars).mean(0), dim=0)
                    self.known[c] = True

    def train(self, mode: bool = True) -> "ICaRL":
        """Set training mode for all but the old network."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self
