"""Averaged GEM (Chaudhry et al. 2019): no step may raise the mean loss of a batch from memory."""

from typing import Any, ClassVar

from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.projection import half_space, reference_gradients
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo
from strategies.er import ER


class AGEM(ER):
    """Where a gradient opposes that of a batch of earlier tasks, its part along that one is taken away.

    g <- g - (g . r / r . r) r if g . r < 0, with r the gradient of the mean loss of a batch drawn from the memories of
    all earlier tasks. In the online scenario, where tasks are not told, the batch comes from all that was seen.

    Differs from the paper: none.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        memory_size, per, memory: see `ER`.
        groups: what has an equal share of the memory, see `ER`: ``both``, each class of each task (the paper), which is
            ``task`` where a sample has no single label; both are ``none`` in the online scenario.
        reference_batch: samples of the reference gradient, >= 0; None as many as the incoming batch, 0 is fine-tuning.
    """

    paper = Paper("Efficient lifelong learning with A-GEM", 2019, "https://arxiv.org/abs/1812.00420")
    protects: ClassVar[bool | tuple[str, ...]] = ("task", "domain")
    neutral: ClassVar[dict[str, Any] | None] = {"reference_batch": 0}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 500,
        per: str = "all",
        memory: str = "ring",
        groups: str = "both",
        reference_batch: int | None = 256,
    ) -> None:
        expect(reference_batch is None or reference_batch >= 0, "strategy.reference_batch", ">= 0", reference_batch)
        online = info.scenario == "online"
        if groups == "both" and info.target != "class":
            groups = "task"
        if groups in ("both", "task") and online:
            groups = "none"
        source = "all" if online else "earlier"
        super().__init__(learner, info, memory_size, per, memory, groups, reference_batch, recall_from=source)

    loss = Strategy.loss

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Project the gradients so that they do not oppose those of the earlier tasks."""
        if self.replay_batch == 0:
            return grads
        fields, valid = self.recall(batch)
        recalled = Batch(fields["x"], fields["y"], fields["task"], batch.key)
        return half_space(grads, reference_gradients(self, grads, recalled, valid))
