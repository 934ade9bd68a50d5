"""What a strategy predicts on the tasks it has seen: how sure it is, which classes it loses, and to which."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cl.measures.base import Array, Measure, Quantity, scores
from cl.measures.drift import padded
from cl.strategy import Strategy
from cl.streams.base import Stream

BINS = 15


class Predictions(Measure):
    """Calibration, accuracy of every class, confusions between tasks, and the bias towards new classes.

    Of streams of classes only; for others it returns nothing. Confusions and bias exist where tasks have classes of
    their own and the task is not told (scenarios ``class`` and ``online``).

    Args:
        samples: test samples of each task, > 0 or None for all.
    """

    cost: ClassVar[str] = "a forward pass over the samples of every task seen, after each task"

    def __init__(self, samples: int | None = 250) -> None:
        super().__init__(samples)

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Begin with nothing."""
        info = stream.info
        told_apart = not info.shared_labels and info.scenario != "task"
        self.state = {"of_classes": info.target == "class", "told_apart": told_apart}
        self.state |= {kind: [] for kind in ("nll", "ece", "classes", "tasks", "bias")}

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Predict the test samples of tasks 0 to k."""
        if not self.state["of_classes"]:
            return
        found = [scores(strategy, stream, self.test(stream, j), j) for j in range(k + 1)]
        self.state["nll"].append(torch.tensor([negative_log_likelihood(s, y) for s, y in found]))
        self.state["ece"].append(torch.tensor([expected_calibration_error(s, y) for s, y in found]))
        every, labels = torch.cat([s for s, _ in found]), torch.cat([y for _, y in found])
        confusion = confusions(every.argmax(1), labels, stream.info.n_classes)
        self.state["confusion"] = confusion
        self.state["classes"].append(confusion.diagonal() / confusion.sum(1))  # 0 / 0 = NaN: class not met
        if self.state["told_apart"]:
            owner = owners(stream)
            predicted = [owner[s.argmax(1)] for s, _ in found]
            rows = [torch.bincount(p, minlength=len(stream)) / len(p) for p in predicted]
            self.state["tasks"].append(torch.stack(rows))
            old = torch.cat([s for s, _ in found[:-1]]) if k > 0 else torch.zeros(0, every.shape[1])
            self.state["bias"].append(new_class_bias(old, owner, k))

    def result(self) -> dict[str, Quantity]:
        """Return calibration (task trained, task), class accuracy (task trained, class) and confusions."""
        if not self.state.get("nll"):
            return {}
        by_task = ("task trained", "task")

        def table(kind: str, *shape: int) -> Array:
            rows = [r.double().numpy() for r in self.state[kind]]
            return padded(rows, shape)

        k, c = len(self.state["nll"]), len(self.state["confusion"])
        names = {"class": [str(i) for i in range(c)]}
        found = {
            "nll": Quantity(
                table("nll", k),
                by_task,
                "Negative log-likelihood of the right class.",
                "lower",
                "mean of -log p(y)",
                "nats",
            ),
            "ece": Quantity(
                table("ece", k),
                by_task,
                "Expected calibration error: how far confidence is from accuracy.",
                "lower",
                f"Guo et al. 2017, equation 3, {BINS} bins",
            ),
            "class_accuracy": Quantity(
                table("classes", c),
                ("task trained", "class"),
                "Accuracy on each class.",
                "higher",
                "share of samples predicted right",
                names=names,
            ),
            "confusion": Quantity(
                self.state["confusion"].double().numpy(),
                ("class", "predicted class"),
                "How many samples of each class are taken for which, after the last task.",
                "",
                "counts",
                "samples",
                {**names, "predicted class": names["class"]},
                summary=False,
            ),
        }
        if self.state["told_apart"]:
            found["task_confusion"] = Quantity(
                table("tasks", k, self.state["tasks"][0].shape[1]),
                ("task trained", "task", "predicted task"),
                "Which task's classes the samples of a task are taken for.",
                "",
                "share of samples",
                summary=False,
            )
            found["new_class_bias"] = Quantity(
                np.array(self.state["bias"], np.float64),
                ("task trained",),
                "On samples of old tasks, the highest logit of the newest classes minus that of the older; above 0 "
                "the old are taken for new.",
                "lower",
                "after Wu et al. 2019 (BiC), section 3",
                "logits",
            )
        return found


def negative_log_likelihood(scores: Tensor, labels: Tensor) -> float:
    """Return mean -log softmax(scores)[y] of scores (n, C) and labels (n,), in nats.

    >>> round(negative_log_likelihood(torch.zeros(2, 4), torch.tensor([0, 3])), 4)  # log 4
    1.3863
    """
    chosen = scores.log_softmax(1).gather(1, labels[:, None])
    return float(-chosen.mean())


def expected_calibration_error(scores: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return sum over bins of (share of samples) |accuracy - mean confidence|, bins of equal width (Guo et al. 2017).

    >>> sure = torch.tensor([[9.0, -9.0], [9.0, -9.0]])
    >>> round(expected_calibration_error(sure, torch.tensor([0, 1])), 4)  # confidence 1, accuracy .5
    0.5
    """
    confidence, predicted = scores.softmax(1).max(1)
    right = (predicted == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right - confidence.double())
    return float(gaps.abs().sum() / len(labels))


def confusions(predicted: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return counts (C, C): row the class, column what it was taken for."""
    return torch.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def owners(stream: Stream) -> Tensor:
    """Return the task that each class belongs to: (C,)."""
    owner = torch.zeros(stream.info.n_classes, dtype=torch.long)
    for k, classes in enumerate(stream.info.task_classes):
        owner[list(classes)] = k
    return owner


def new_class_bias(scores: Tensor, owner: Tensor, k: int) -> float:
    """Return the mean over samples of old tasks of (highest score of task k's classes - highest of earlier classes)."""
    if len(scores) == 0:
        return float("nan")
    return float((scores[:, owner == k].amax(1) - scores[:, owner < k].amax(1)).mean())
