"""Do tasks pull the weights in opposite directions, and do they need the same weights?"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.importance import fisher
from cl.measures.base import Array, Measure, Quantity, known
from cl.measures.drift import padded
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.streams.data import Data

BATCH = 32  # samples a backward pass: long sequences need much memory for one


class Interference(Measure):
    """Cosine between the gradients of the tasks seen, and overlap of their Fisher information, at the present weights.

    A negative cosine means that a step for one task hurts the other (Riemer et al. 2019, equation 1). The overlap of
    two diagonal Fisher informations scaled to trace 1 is 1 - d^2 with d the Frechet distance: sum sqrt(F1 F2), from 0
    (different weights matter) to 1 (the same do) (Kirkpatrick et al. 2017, supplement 4.3).

    Args:
        samples: training samples of each task, > 0 or None for all.
    """

    cost: ClassVar[str] = "two backward passes over the samples of every task seen, after each task"

    def __init__(self, samples: int | None = 200) -> None:
        super().__init__(samples)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Begin with nothing."""
        self.state = {"cosine": [], "overlap": [], "layers": []}

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Compare tasks 0 to k; NaN where they are not asked of one network, or nothing of it is trained any more."""
        layers: dict[str, Tensor] = {}
        cosine = similar = torch.full((k + 1, k + 1), float("nan"), dtype=torch.float64)
        if self.shared(strategy, stream, k) and any(p.requires_grad for p in strategy.learner.parameters()):
            data = [self.train(stream, j) for j in range(k + 1)]
            cosine = cosines(torch.stack([gradient(strategy, d) for d in data]))
            fishers = [
                {n: v.detach() for n, v in fisher(strategy, d, "sampled", batch_size=BATCH).items()} for d in data
            ]
            layers = {n: torch.tensor([overlap(f[n], fishers[k][n]) for f in fishers]) for n in fishers[k]}
            flat = [torch.cat([v.flatten() for v in f.values()]) for f in fishers]
            similar = torch.tensor([[overlap(a, b) for b in flat] for a in flat])
        self.state["cosine"].append(cosine)
        self.state["overlap"].append(similar)
        self.state["layers"].append(layers)

    def result(self) -> dict[str, Quantity]:
        """Return (task trained, task, other task), and the overlap with the newest task by parameter."""
        k = len(self.state.get("cosine", []))
        if k == 0:
            return {}

        def table(kind: str, *shape: int) -> Array:
            return padded([r.double().cpu().numpy() for r in self.state[kind]], shape)

        pairs = ("task trained", "task", "other task")
        names = list(dict.fromkeys(n for row in self.state["layers"] for n in row))
        newest = np.full((k, k, len(names)), np.nan)
        for now, row in enumerate(self.state["layers"]):
            for name, values in row.items():
                newest[now, : now + 1, names.index(name)] = values.double().numpy()
        parameters = {"parameter": [n.removeprefix("learner.") for n in names]}
        kirkpatrick = "Kirkpatrick et al. 2017, supplement 4.3"
        return known(
            gradient_cosine=Quantity(
                table("cosine", k, k),
                pairs,
                "Cosine between the gradients of two tasks: below 0, a step for one hurts the other.",
                "higher",
                "Riemer et al. 2019, equation 1",
                "cosine",
            ),
            fisher_overlap=Quantity(
                table("overlap", k, k), pairs, "How far two tasks depend on the same weights.", "", kirkpatrick
            ),
            fisher_overlap_newest=Quantity(
                newest,
                ("task trained", "task", "parameter"),
                "How far a task and the newest one depend on the same weights of each layer.",
                "",
                kirkpatrick,
                names=parameters,
            ),
        )


def gradient(strategy: Strategy, data: Data) -> Tensor:
    """Return the gradient of the mean loss on `data` by the learner's trainable parameters: (P,) float64."""
    parameters = [p for p in strategy.learner.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for batch in data.in_order(BATCH):
        with torch.enable_grad():
            loss = strategy.per_sample(strategy("logits", batch.x, batch.task), batch).sum() / len(data)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        total += torch.cat([g.flatten() for g in flat]).double().cpu()
    return total


def cosines(rows: Tensor) -> Tensor:
    """Return the cosine between every two rows of (K, P): (K, K); NaN with a row of zeros.

    >>> cosines(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    size = rows.norm(dim=1)
    found: Tensor = (rows @ rows.T) / (size[:, None] * size[None])
    return found


def overlap(a: Tensor, b: Tensor) -> float:
    """Return sum sqrt(a b) of non-negative a and b of one shape, each scaled to sum 1; NaN where one is zero.

    >>> round(overlap(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0])), 4)
    0.7071
    """
    scale = a.double().sum() * b.double().sum()
    return float((a.double() * b.double()).sqrt().sum() / scale.sqrt()) if bool(scale > 0) else float("nan")
