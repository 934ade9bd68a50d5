"""Which examples are forgotten, and which go first."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.measures.base import Array, Measure, Quantity, scores
from cl.measures.drift import padded
from cl.strategy import Strategy
from cl.streams.base import Stream


class ForgettingEvents(Measure):
    """Forgetting events of single training examples (Toneva et al. 2019), counted between tasks.

    An example that is right after one task and wrong after the next has had an event. ``example_index`` gives the row
    of the data set for each entry and ``example_label`` its class, so that the examples can be looked at; the report
    shows those that are forgotten most.

    Args:
        samples: training samples of each task, > 0 or None for all.
    """

    cost: ClassVar[str] = "a forward pass over the samples of every task seen, after each task; keeps one byte each"
    key: ClassVar[str] = "events"

    def __init__(self, samples: int | None = 500) -> None:
        super().__init__(samples)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Begin with nothing."""
        self.state = {"right": [], "index": [], "label": [], "of_classes": stream.info.target == "class"}

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Note which examples of tasks 0 to k are predicted right."""
        if not self.state["of_classes"]:
            return
        own = self.train(stream, k)
        self.state["index"].append(own.index.cpu())
        self.state["label"].append(own.labels.cpu())
        self.state["right"].append([self._right(strategy, stream, j) for j in range(k + 1)])

    def _right(self, strategy: Strategy, stream: Stream, j: int) -> Tensor:
        found, labels = scores(strategy, stream, self.train(stream, j), j)
        return (found.argmax(1) == labels).to(torch.uint8)

    def result(self) -> dict[str, Quantity]:
        """Return counts and first events (task, example)."""
        rows = self.state.get("right", [])
        if not rows:
            return {}
        k = len(rows)
        histories = [np.stack([rows[now][j].numpy() for now in range(j, k)]).astype(bool) for j in range(k)]
        size = max(h.shape[1] for h in histories)

        def table(columns: list[Array]) -> Array:
            return padded([np.asarray(c, np.float64) for c in columns], (size,))

        axes, source = ("task", "example"), "Toneva et al. 2019, definition 1"
        return {
            "forgetting_events": Quantity(
                table([events(h) for h in histories]),
                axes,
                "How often each training example turned from right to wrong; NaN for one that was never right.",
                "lower",
                source,
                "events",
            ),
            "first_forgotten": Quantity(
                table([first_event(h) + j for j, h in enumerate(histories)]),
                axes,
                "The task (from 1) after which each training example was first forgotten; NaN for one that never was.",
                "higher",
                source,
                "task",
            ),
            "example_index": Quantity(
                table([i.double().numpy() for i in self.state["index"]]),
                axes,
                "The row of the data set that each example is.",
                "",
                "the stream",
                "row",
                summary=False,
            ),
            "example_label": Quantity(
                table([i.double().numpy() for i in self.state["label"]]),
                axes,
                "The class of each example.",
                "",
                "the stream",
                "class",
                summary=False,
            ),
        }


def events(history: np.ndarray) -> Array:
    """Return how often each example turned from right to wrong, (n,); NaN for one never right.

    Args:
        history: (moments, n) bool, right or wrong.

    >>> events(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)).tolist()
    [2.0, 1.0, nan]
    """
    count = (history[:-1] & ~history[1:]).sum(axis=0).astype(np.float64)
    return np.where(history.any(axis=0), count, np.nan)


def first_event(history: np.ndarray) -> Array:
    """Return the moment (from 1) before which each example was first right and at which it was wrong, plus one: (n,).

    A history begins right after the example's own task, moment 0; the first task after it is moment 1.

    >>> first_event(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0]], bool)).tolist()  # lost at moments 1, 2, never
    [2.0, 3.0, nan]
    """
    lost = history[:-1] & ~history[1:]
    if len(lost) == 0:
        return np.full(history.shape[1], np.nan)
    return np.where(lost.any(axis=0), lost.argmax(axis=0) + 2.0, np.nan)
