"""Is it the representation or the head that forgets? New read-outs on the frozen features."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.measures.base import Array, Measure, Quantity, features, scores
from cl.measures.drift import padded
from cl.strategy import Strategy
from cl.streams.base import Stream

SMALLEST_DROP = 0.02  # below it there is nothing to recover


class Probes(Measure):
    """Accuracy of new read-outs, trained on the features of the learner as it is after every task.

    ``probe_task``: a linear read-out for each task alone, on its own classes: what the representation still holds of
    it. ``probe_all``: one linear read-out for all tasks seen. ``nearest_mean``: the class with the nearest mean feature
    among those seen. ``recovered_by_new_head``: the part of a task's drop that ``probe_all`` wins back, or
    ``probe_task`` where the task is told: near 1, the head forgot; near 0, the representation did. Linear read-outs are
    ridge regressions onto -1/+1 on standardised features (alpha 1), which have a closed form. Features are those that
    the strategy asks about the task, with its gates, of the task's own network where it has one.

    Args:
        samples: training and test samples of each task, > 0 or None for all.
    """

    cost: ClassVar[str] = "forward passes over training and test samples of every task seen, and a linear solve each"

    def __init__(self, samples: int | None = 500) -> None:
        super().__init__(samples)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Begin with nothing."""
        kinds = ("probe_task", "probe_all", "nearest_mean", "own")
        told = stream.info.scenario == "task"
        self.state = {"of_classes": stream.info.target == "class", "told": told, **{kind: [] for kind in kinds}}

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Train and test read-outs on tasks 0 to k."""
        if not self.state["of_classes"]:
            return
        predicted = [scores(strategy, stream, self.test(stream, j), j) for j in range(k + 1)]
        self.state["own"].append(torch.stack([(s.argmax(1) == y).double().mean() for s, y in predicted]))
        asked = [network for network in self.networks(strategy, stream, k) if network is not None]
        if len(asked) <= k:
            for kind in ("probe_task", "probe_all", "nearest_mean"):
                self.state[kind].append(torch.full((k + 1,), float("nan"), dtype=torch.float64))
            return
        train = [features(network, self.train(stream, j)) for j, network in enumerate(asked)]
        test = [features(network, self.test(stream, j)) for j, network in enumerate(asked)]
        x, y = torch.cat([x for x, _ in train]), torch.cat([y for _, y in train])
        every = torch.cat([x for x, _ in test])
        sizes = [len(y) for _, y in test]

        def row(predicted: Sequence[Tensor]) -> Tensor:
            right = [(p == y).double().mean() for p, (_, y) in zip(predicted, test, strict=True)]
            return torch.stack(right)

        alone = [ridge(*train[j], test[j][0]) for j in range(k + 1)]
        self.state["probe_task"].append(row(alone))
        self.state["probe_all"].append(row(torch.split(ridge(x, y, every), sizes)))
        self.state["nearest_mean"].append(row(torch.split(nearest_mean(x, y, every), sizes)))

    def result(self) -> dict[str, Quantity]:
        """Return accuracies (task trained, task) and the part recovered (task)."""
        k = len(self.state.get("own", []))
        if k == 0 or not bool(torch.isfinite(self.state["probe_all"][-1]).all()):
            return {}

        def table(kind: str) -> Array:
            return padded([r.numpy() for r in self.state[kind]], (k,))

        own, probe, axes = table("own"), table("probe_all"), ("task trained", "task")
        return {
            "probe_task": Quantity(
                table("probe_task"),
                axes,
                "Accuracy of a new linear head for the task alone: what the representation still holds of it.",
                "higher",
                "ridge regression on frozen features",
            ),
            "probe_all": Quantity(
                probe,
                axes,
                "Accuracy of one new linear head for all tasks seen.",
                "higher",
                "ridge regression on frozen features",
            ),
            "nearest_mean": Quantity(
                table("nearest_mean"),
                axes,
                "Accuracy of the nearest class mean in feature space.",
                "higher",
                "Mensink et al. 2013; Rebuffi et al. 2017 (iCaRL)",
            ),
            "recovered_by_new_head": Quantity(
                recovered(own, table("probe_task") if self.state["told"] else probe),
                ("task",),
                "The part of a task's drop that a new head wins back: near 1 the head forgot, near "
                "0 the representation did.",
                "",
                "(probe - accuracy) / (accuracy when learned - accuracy), at the end",
            ),
        }


def recovered(own: Array, probe: Array) -> Array:
    """Return (probe(K, j) - a(K, j)) / (a(j, j) - a(K, j)) for each task, (K,); NaN for drops below `SMALLEST_DROP`.

    >>> own, probe = np.array([[0.9, np.nan], [0.5, 0.8]]), np.array([[0.9, np.nan], [0.8, 0.8]])
    >>> recovered(own, probe).round(2).tolist()
    [0.75, nan]
    """
    drop = np.diagonal(own) - own[-1]
    lost = drop >= SMALLEST_DROP
    return np.where(lost, (probe[-1] - own[-1]) / np.where(lost, drop, 1.0), np.nan)


def labels(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different labels of y (n,), sorted, and the place of every label among them (n,)."""
    found: tuple[Tensor, Tensor] = torch.unique(y, return_inverse=True)
    return found


def ridge(x: Tensor, y: Tensor, test: Tensor, alpha: float = 1.0) -> Tensor:
    """Return labels (m,) of `test` (m, D) by ridge regression of -1/+1 targets on standardised x (n, D), y (n,)."""
    mean, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    x, test = (x - mean) / spread, (test - mean) / spread
    classes, place = labels(y)
    if len(classes) == 1:
        return classes.expand(len(test))
    targets = torch.nn.functional.one_hot(place).to(x.dtype) * 2 - 1
    offset = targets.mean(0)
    centred = targets - offset
    n, d = x.shape
    if n >= d:
        weights = torch.linalg.solve(x.T @ x + alpha * torch.eye(d, dtype=x.dtype), x.T @ centred)
    else:  # the same solution from the smaller system
        weights = x.T @ torch.linalg.solve(x @ x.T + alpha * torch.eye(n, dtype=x.dtype), centred)
    best: Tensor = classes[(test @ weights + offset).argmax(1)]
    return best


def nearest_mean(x: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """Return labels (m,) of `test` (m, D) by the nearest of the class means of x (n, D), y (n,)."""
    classes, place = labels(y)
    sums = torch.zeros(len(classes), x.shape[1], dtype=x.dtype).index_add_(0, place, x)
    means = sums / torch.bincount(place)[:, None]
    best: Tensor = classes[torch.cdist(test, means).argmin(1)]
    return best
