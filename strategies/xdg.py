"""Context-dependent gating: each task uses its own random subset of the hidden units."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.learners.base import Learner
from cl.seeding import generator
from cl.strategy import Network, Paper, Strategy
from cl.streams.base import StreamInfo


class XdG(Strategy):
    """Switch off, for each task, a fixed random share of the units (channels) of every hidden layer.

    By itself it lowers the overlap between tasks; the paper combines it with SI or EWC (see `strategies.combined`). In
    networks for sequences the outputs of a block are gated at every step, not the recurrent state inside it: a unit
    that is off still acts on the later steps of its own layer.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        share: fraction of the units that are off in a task, in [0, 1); .8 in the paper (with 2000 units).

    Differs from the code of van de Ven et al. 2022: a unit that is off gives 0; there its bias is not gated, so that it
    gives relu(b), the same for every input.
    """

    paper = Paper(
        "Alleviating catastrophic forgetting using context-dependent gating and synaptic stabilization",
        2018,
        "https://doi.org/10.1073/pnas.1803839115",
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task",)
    needs_task_id: ClassVar[bool] = True
    protects: ClassVar[bool] = True
    neutral: ClassVar[Mapping[str, Any] | None] = {"share": 0.0}
    small: ClassVar[Mapping[str, Any]] = {"share": 0.5}

    def __init__(self, learner: Learner, info: StreamInfo, share: float = 0.8) -> None:
        super().__init__(learner, info)
        expect(0 <= share < 1, "strategy.share", "in [0, 1)", share)
        for i, width in enumerate(learner.widths):
            gates = torch.ones(info.n_tasks, width)
            many = min(round(share * width), width - 1)  # one unit of a small layer stays on
            for k in range(info.n_tasks):
                off = torch.randperm(width, generator=generator(info.seed, "gate", i, k))[:many]
                gates[k, off] = 0.0
            self.register_buffer(f"gate_{i}", gates)

    def gates(self, task: Tensor | int) -> list[Tensor]:
        """Return for each block the gates of the task ((width,), or (B, width) for a tensor of tasks)."""
        return [self.get_buffer(f"gate_{i}")[task] for i in range(len(self.learner.widths))]

    def logits(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Return the outputs of the network with each sample's gates."""
        assert task is not None
        out: Tensor = self.learner(x, self.gates(task))
        return out

    def network(self, task: int | None) -> Network:
        """Return the learner and the gates of the task."""
        assert task is not None
        return Network(self.learner, self.gates(task))
