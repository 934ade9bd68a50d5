"""What is left where nothing seems to be: how much faster a forgotten task is learned again (Ebbinghaus 1885)."""

from copy import deepcopy
from typing import ClassVar

import numpy as np
import torch

from cl.errors import expect
from cl.measures.base import Measure, Quantity, scores
from cl.seeding import step_keys
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.streams.data import Data
from cl.training import Schedule, TrainingOptions

EVERY = 2  # steps between two looks at the accuracy


class Savings(Measure):
    """Savings in relearning, measured on copies after the last task; the strategy itself is not touched.

    For every task but the last, the trained network and the untrained one are trained on that task alone, with the same
    batches and the same dropout. Savings = 1 - steps of the trained network / steps of the untrained one until the
    accuracy is within `tolerance` of what the untrained one reaches at its best (Ebbinghaus 1885: savings = 1 -
    relearning / learning).
    1: nothing had to be relearned; 0: as if never learned; below 0: the network learns worse than a new one.

    Args:
        steps: largest number of steps, > 0.
        batch_size: samples a step, > 0.
        lr: learning rate of plain Adam, > 0.
        tolerance: how close counts as learned, a fraction >= 0.
        samples: test samples of each task, > 0 or None for all.
    """

    cost: ClassVar[str] = "trains two copies of the network for `steps` steps on every old task, once at the end"

    def __init__(
        self,
        steps: int = 100,
        batch_size: int = 64,
        lr: float = 0.001,
        tolerance: float = 0.02,
        samples: int | None = 500,
    ) -> None:
        super().__init__(samples)
        expect(steps > 0, "measures.savings.steps", "> 0", steps)
        expect(batch_size > 0, "measures.savings.batch_size", "> 0", batch_size)
        expect(lr > 0, "measures.savings.lr", "> 0", lr)
        expect(tolerance >= 0, "measures.savings.tolerance", ">= 0", tolerance)
        self.steps, self.lr, self.tolerance = steps, lr, tolerance
        self.options = TrainingOptions(epochs=None, steps=steps, batch_size=batch_size)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Keep the untrained weights."""
        weights = {n: p.detach().cpu().clone() for n, p in strategy.learner.state_dict().items()}
        self.state = {"untrained": weights, "fresh": [], "again": []}

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """After the last task, relearn every earlier one; nothing where it is not asked of a trained learner."""
        trainable = any(p.requires_grad for p in strategy.learner.parameters()) and self.shared(strategy, stream, k)
        if k < len(stream) - 1 or not trainable or stream.info.target != "class":
            return
        for j in range(k):
            for kind in ("fresh", "again"):
                copy = deepcopy(strategy)
                if kind == "fresh":
                    matching = copy.learner.state_dict()
                    known = {n: w for n, w in self.state["untrained"].items() if n in matching}
                    copy.learner.load_state_dict({**matching, **known})
                self.state[kind].append(torch.tensor(self._curve(copy, stream, j)))

    def _curve(self, strategy: Strategy, stream: Stream, j: int) -> list[float]:
        """Return the accuracy on task j before training on it and every `EVERY` steps of it."""
        data, test = stream[j].train, self.test(stream, j)
        plan = Schedule(len(data), self.options, stream.info.seed, j)
        optimizer = torch.optim.Adam([p for p in strategy.learner.parameters() if p.requires_grad], self.lr)
        keys = step_keys(stream.info.seed, j, 0, plan.steps, data.device)
        found = [_accuracy(strategy, stream, test, j)]
        for step, positions in enumerate(plan.positions(0, plan.steps, data.device), 1):
            batch = data.batch(positions, keys[step - 1], augment=False)
            strategy.train()
            with torch.enable_grad():
                loss = strategy("validation_loss", batch).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            strategy.eval()
            if step % EVERY == 0 or step == plan.steps:
                found.append(_accuracy(strategy, stream, test, j))
        return found

    def result(self) -> dict[str, Quantity]:
        """Return savings (task), NaN for the last task."""
        if not self.state.get("fresh"):
            return {}
        pairs = zip(self.state["fresh"], self.state["again"], strict=True)
        values = [savings(f.numpy(), a.numpy(), self.tolerance) for f, a in pairs]
        return {
            "savings": Quantity(
                np.array([*values, np.nan]),
                ("task",),
                "The part of the training that relearning an old task takes less than learning it anew.",
                "higher",
                "Ebbinghaus 1885, chapter 6",
            ),
        }


def _accuracy(strategy: Strategy, stream: Stream, data: Data, j: int) -> float:
    found, labels = scores(strategy, stream, data, j)
    return float((found.argmax(1) == labels).double().mean())


def savings(fresh: np.ndarray, again: np.ndarray, tolerance: float) -> float:
    """Return 1 - (looks until `again` is at the goal) / (looks until `fresh` is).

    The goal is the best of `fresh` - tolerance. A network that never gets there counts as if it did after the last
    look; NaN if `fresh` begins at the goal.

    >>> savings(np.array([0.1, 0.5, 0.8, 0.9]), np.array([0.6, 0.9, 0.9, 0.9]), 0.0)  # 1 look instead of 3
    0.6666666666666667
    """
    goal = fresh.max() - tolerance

    def looks(curve: np.ndarray) -> int:
        there = curve >= goal
        return int(there.argmax()) if there.any() else len(curve)

    return 1 - looks(again) / looks(fresh) if looks(fresh) > 0 else float("nan")
