"""Where the network changed: how far weights and features moved, layer by layer."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.measures.base import Array, Measure, Quantity, activations, known, layer_names
from cl.strategy import Strategy
from cl.streams.base import Stream


def padded(rows: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Return rows of growing size as one array (len(rows), *shape), NaN where a row has nothing."""
    full = np.full((len(rows), *shape), np.nan)
    for i, row in enumerate(rows):
        where = (slice(i, i + 1), *(slice(n) for n in row.shape))
        full[where] = row
    return full


class WeightDrift(Measure):
    """How far every parameter moved during each task, relative to its size before the task.

    ``weight_drift`` is ||theta_k - theta_(k-1)|| / ||theta_(k-1)|| for each parameter of the network that task k is
    trained in, and ``weight_drift_total`` the same with its initial value in the place of theta_(k-1). A network of the
    task's own counts from its own start: a copy of the one before it goes on from there, a newly initialised one begins
    anew. NaN for a parameter that is not there, or was zero.
    """

    cost: ClassVar[str] = "keeps two copies of the learner's weights; no forward pass"

    def __init__(self) -> None:
        super().__init__(None)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Remember the untrained weights."""
        self.state = {"first": self._weights(strategy), "last": self._weights(strategy), "steps": [], "totals": []}

    def before_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Remember where the task starts; what is not where the last one ended is new."""
        first, last, now = self.state["first"], self.state["last"], self._weights(strategy)
        kept = {n for n, w in now.items() if n in last and torch.equal(last[n], w)}
        self.state["first"] = {n: first[n] if n in kept else w for n, w in now.items()}
        self.state["last"] = now

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Measure the distance of every parameter to the weights before the task, and to the first ones."""
        now = self._weights(strategy)
        for kind, before in (("steps", "last"), ("totals", "first")):
            self.state[kind].append({n: relative(self.state[before][n], w) for n, w in now.items()})
        self.state["last"] = now

    @staticmethod
    def _weights(strategy: Strategy) -> dict[str, Tensor]:
        return {n: p.detach().cpu().clone() for n, p in strategy.learner.named_parameters()}

    def result(self) -> dict[str, Quantity]:
        """Return (task, parameter) for the tasks done."""
        names = list(dict.fromkeys(n for row in self.state.get("totals", []) for n in row))

        def table(kind: str) -> Array:
            rows = [[row.get(n, np.nan) for n in names] for row in self.state.get(kind, [])]
            return np.array(rows, np.float64).reshape(len(rows), len(names))

        axes, source = ("task", "parameter"), "relative L2 distance"
        facts = {"better": "", "source": source, "names": {"parameter": names}}
        during = "How far each parameter moved while a task was trained, relative to its norm before the task."
        total = "How far each parameter is from its initial value, relative to that value's norm."
        return {
            "weight_drift": Quantity(table("steps"), axes, during, **facts),  # type: ignore[arg-type]
            "weight_drift_total": Quantity(table("totals"), axes, total, **facts),  # type: ignore[arg-type]
        }


def relative(before: Tensor, now: Tensor) -> float:
    """Return ||now - before|| / ||before||; NaN where the shapes differ or `before` is zero."""
    if before.shape != now.shape:
        return float("nan")
    size, way = (float(torch.linalg.vector_norm(t, dtype=torch.float64)) for t in (before, now - before))
    return way / size if size > 0 else float("nan")


class FeatureDrift(Measure):
    """How the representation of every task changed since that task was learned, block by block.

    For task j after task k >= j: linear CKA (Kornblith et al. 2019, equation 4) between the activations of the same
    test samples right after task j and now, and the relative L2 distance between them. CKA of 1 means the same up to
    rotation and scale: a new linear read-out would do.

    Args:
        samples: test samples of each task, > 0 or None for all.
    """

    cost: ClassVar[str] = "a forward pass over the samples of every task seen; keeps their activations"
    key: ClassVar[str] = "feature_drift"

    def __init__(self, samples: int | None = 250) -> None:
        super().__init__(samples)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Begin with nothing."""
        self.state = {"layers": layer_names(strategy), "then": [], "cka": [], "distance": []}

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Compare with what every earlier task looked like when it was learned."""
        asked = self.networks(strategy, stream, k)
        now = [[] if n is None else activations(n, self.test(stream, j)) for j, n in enumerate(asked)]
        self.state["then"].append([a.float() for a in now[k]])
        then = [[a.double() for a in layers] for layers in self.state["then"]]
        pairs = [list(zip(then[j], now[j], strict=True)) for j in range(k + 1)]
        nothing = [float("nan")] * len(self.state["layers"])
        for kind, likeness in (("cka", cka), ("distance", relative)):
            rows = [[likeness(a, b) for a, b in task] or nothing for task in pairs]
            self.state[kind].append(torch.tensor(rows))

    def result(self) -> dict[str, Quantity]:
        """Return (task trained, task, layer)."""
        layers = self.state.get("layers", [])

        def table(kind: str) -> Array:
            rows = [r.double().numpy() for r in self.state.get(kind, [])]
            return padded(rows, (len(rows), len(layers)))

        axes, names = ("task trained", "task", "layer"), {"layer": layers}
        same = "How alike the representation of a task is to that right after the task (1 = same up to rotation)."
        far = "How far the representation of a task moved since the task was learned, relative to its norm then."
        return known(
            cka=Quantity(table("cka"), axes, same, "higher", "Kornblith et al. 2019, linear CKA", names=names),
            feature_drift=Quantity(table("distance"), axes, far, "lower", "relative L2 distance", names=names),
        )


def cka(x: Tensor, y: Tensor) -> float:
    """Return linear CKA of two sets of activations of the same samples, (n, D1) and (n, D2): in [0, 1].

    ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of centred X and Y; NaN where one of them does not vary.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    >>> round(cka(x, 5 * x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)), 6)
    1.0
    """
    x, y = x - x.mean(0), y - y.mean(0)
    size = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).norm() ** 2 / size) if bool(size > 0) else float("nan")
