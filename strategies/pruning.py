"""Synaptic pruning between tasks: drop the weakest connections, for good or to let new ones grow."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.learners.connections import connections
from cl.parameters import PerParameter
from cl.seeding import seeded
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo, Task

SCOPES = ("layer", "network")
REGROWTHS = ("none", "zero", "random")


class Pruning(Strategy):
    """At the end of every task, cut the `share` of connections with the smallest magnitude.

    Weak synapses are removed and strong ones kept, as in development (Chechik, Meilijson, Ruppin 1998, Synaptic pruning
    in development); magnitude as the criterion is Han et al. 2015, pruning as graceful forgetting that makes room for
    later tasks Golkar, Kagan, Cho 2019 (Continual learning via neural pruning). Weights of linear, convolution and
    recurrent layers below the head are pruned (see `connections`), biases are not.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        share: fraction of the connections present that is cut after each task, in [0, 1).
        scope: ``layer`` cuts that share in every layer, ``network`` compares all layers.
        regrow: ``none`` (cut for good: the network grows sparser), ``zero`` (a cut connection may grow again from zero)
            or ``random`` (it is replaced by a newly initialised one).
    """

    paper = Paper(
        "Learning both weights and connections for efficient neural networks", 2015, "https://arxiv.org/abs/1506.02626"
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    neutral: ClassVar[Mapping[str, Any] | None] = {"share": 0.0}

    def __init__(
        self, learner: Learner, info: StreamInfo, share: float = 0.2, scope: str = "layer", regrow: str = "none"
    ) -> None:
        super().__init__(learner, info)
        expect(0 <= share < 1, "strategy.share", "in [0, 1)", share)
        expect(scope in SCOPES, "strategy.scope", f"in {list(SCOPES)}", scope)
        expect(regrow in REGROWTHS, "strategy.regrow", f"in {list(REGROWTHS)}", regrow)
        self.share, self.scope, self.regrow = share, scope, regrow
        self.names = connections(learner, "pruning")
        self.cut = PerParameter(learner, only=self.names if regrow == "none" else (), dtype=torch.bool)

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Keep what is cut for good at zero."""
        for p, cut in self.cut.pairs(self.learner):
            p.copy_(torch.where(cut, 0.0, p))

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Cut the weakest connections."""
        weights = {n: p for n, p in self.learner.named_parameters() if n in self.names}
        sizes = {n: self.size(n, p) for n, p in weights.items()}
        groups = [[n] for n in sizes] if self.scope == "layer" else [list(sizes)]
        with seeded(self.info.seed, "regrow", task.index):
            fresh = dict(self.learner.fresh().named_parameters())
        for group in groups:
            together = torch.cat([sizes[n].flatten() for n in group])
            count = int(self.share * int(torch.isfinite(together).sum()))
            weakest = torch.zeros_like(together, dtype=torch.bool)
            weakest[together.argsort()[:count]] = True
            for n, weak in zip(group, torch.split(weakest, [sizes[n].numel() for n in group]), strict=True):
                where = weak.view_as(weights[n])
                weights[n].copy_(torch.where(where, fresh[n] if self.regrow == "random" else 0.0, weights[n]))
                if n in self.cut:
                    self.cut[n].logical_or_(where)

    def size(self, name: str, weight: Tensor) -> Tensor:
        """Return the magnitude of each connection, infinite where it is cut already."""
        return torch.where(self.cut[name], torch.inf, weight.abs()) if name in self.cut else weight.abs()
