"""What a run has measured so far: the engine writes it down, saves it with its state, and makes results of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl.costs import Passes
from cl.measures.base import Measure, merged
from cl.results import Array, Results
from cl.strategy import Strategy
from cl.streams.base import Stream


class Record:
    """Accuracies, losses, curves and costs of one replica.

    Args:
        tasks: K, the tasks of the stream.

    Attributes:
        accuracy, loss: (K + 1, K), row 0 before any training, row k after task k; NaN where not measured yet.
        curves: (step, task, accuracy (K,)) of each point of the within-task curve.
        task_steps: steps of each task that was trained.
        train_losses: the loss of every step, (steps,) of each task.
        online_accuracy: the accuracy on every batch before it was learned, (steps,) of each task.
        seconds: spent in each phase.
        samples: that training saw, each as often as it was seen.
        passes: of samples through the network, forward and backward.
        parameters_trained: the most that were trained at once.
    """

    def __init__(self, tasks: int) -> None:
        self.accuracy, self.loss = np.full((tasks + 1, tasks), np.nan), np.full((tasks + 1, tasks), np.nan)
        self.curves: list[tuple[int, int, Array]] = []
        self.task_steps: list[int] = []
        self.train_losses: list[Tensor] = []
        self.online_accuracy: list[Tensor] = []
        self.seconds = {"train": 0.0, "evaluate": 0.0, "consolidate": 0.0, "measure": 0.0}
        self.samples = self.parameters_trained = 0
        self.passes = Passes()

    def end_task(self, losses: Tensor, online_scores: Tensor | None = None) -> None:
        """Note the steps of a task by their losses (steps,), and what was scored before each, unless it failed."""
        self.task_steps.append(len(losses))
        self.train_losses.append(losses.cpu())
        if online_scores is not None:
            self.online_accuracy.append(online_scores.cpu())

    def results(self, stream: Stream, strategy: Strategy, measures: Sequence[Measure]) -> Results:
        """Return what was measured so far."""
        costs: dict[str, Any] = {f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()}
        costs |= {"samples": self.samples, "steps": sum(self.task_steps)}
        costs |= {"passes_forward": self.passes.forward, "passes_backward": self.passes.backward}
        costs["parameters_trained"] = self.parameters_trained
        costs |= {f"bytes_{kind}": size for kind, size in strategy.stored_bytes().items()}
        points = len(self.curves)
        return Results(
            accuracy=self.accuracy[None].copy(),
            loss=self.loss[None].copy(),
            seeds=[stream.info.seed],
            curve_step=np.array([c[0] for c in self.curves], np.int64),
            curve_task=np.array([c[1] for c in self.curves], np.int64),
            curve_accuracy=np.array([c[2] for c in self.curves]).reshape(1, points, len(stream)),
            task_steps=np.array(self.task_steps, np.int64),
            train_loss=torch.cat([torch.zeros(0), *self.train_losses]).numpy()[None],
            online_accuracy=torch.cat([torch.zeros(0), *self.online_accuracy]).numpy()[None],
            costs=costs,
            measures=merged(measures),
            language=stream.language,
            regression=stream.info.target == "real",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return a copy in plain types and tensors."""
        return {
            "accuracy": self.accuracy.tolist(),
            "loss": self.loss.tolist(),
            "curves": [[step, k, accuracy.tolist()] for step, k, accuracy in self.curves],
            "task_steps": list(self.task_steps),
            "train_losses": [t.clone() for t in self.train_losses],
            "online_accuracy": [t.clone() for t in self.online_accuracy],
            "seconds": dict(self.seconds),
            "samples": self.samples,
            "passes": [self.passes.forward, self.passes.backward],
            "parameters_trained": self.parameters_trained,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; other entries of `state` are left alone."""
        self.accuracy, self.loss = np.array(state["accuracy"]), np.array(state["loss"])
        self.curves = [(int(step), int(k), np.array(accuracy)) for step, k, accuracy in state["curves"]]
        self.task_steps, self.train_losses = list(state["task_steps"]), list(state["train_losses"])
        self.online_accuracy = list(state["online_accuracy"])
        self.seconds, self.samples = dict(state["seconds"]), int(state["samples"])
        self.passes, self.parameters_trained = Passes(*state["passes"]), int(state["parameters_trained"])
