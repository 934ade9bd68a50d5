"""Which output a label of the source becomes: the scenario's part of a stream."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cl.errors import ConfigError
from cl.objectives import IGNORE
from cl.streams.constructions import Piece


@dataclass(frozen=True)
class Labelling:
    """From labels of the source to outputs of the stream.

    Attributes:
        outputs: (K, C) int64, the output of each class in each task, -1 where a task lacks the class; None for
            targets that are not classes.
        n_outputs: number of outputs.
        task_outputs: the outputs of each task.
        names: what each output of each task means.
        shared: True if all tasks use the same outputs.
    """

    outputs: Tensor | None
    n_outputs: int
    task_outputs: tuple[tuple[int, ...], ...]
    names: tuple[tuple[str, ...], ...]
    shared: bool

    def to(self, device: torch.device) -> "Labelling":
        """Return the labelling for labels on `device`."""
        return self if self.outputs is None else replace(self, outputs=self.outputs.to(device))

    def __call__(self, y: Tensor, k: int) -> Tensor:
        """Return the outputs of source labels y (n,) or (n, T) in task k; -100 stays -100. Real targets stay."""
        if self.outputs is None:
            return y
        if y.dim() == 1:
            return self.outputs[k][y]
        return torch.where(y == IGNORE, y, self.outputs[k][y.clamp_min(0)])


def labelling(
    class_names: tuple[str, ...], target: str, pieces: list[Piece], scenario: str, same_classes: bool
) -> Labelling:
    """Return the labels of a stream.

    Args:
        class_names: what each class of the source means.
        target: ``class``, ``steps`` or ``real``.
        pieces: its tasks.
        scenario: see `cl.streams.stream.TaskStream`.
        same_classes: True if all tasks show the same classes, so that ``online`` shares labels.

    Raises:
        ConfigError: a regression stream in a scenario that gives tasks outputs of their own.
    """
    names = tuple(tuple(class_names[c] for c in piece.classes) for piece in pieces)
    same = same_classes or (target != "class")
    shared = scenario == "domain" or (scenario == "online" and same)
    if target == "real":
        if not shared:
            raise ConfigError(
                f"Expected `stream.scenario` in ['domain', 'online'] for regression, got {scenario!r}; "
                "its tasks share their outputs"
            )
        each = tuple(range(len(class_names)))
        return Labelling(None, len(class_names), tuple(each for _ in pieces), names, True)
    sizes = [len(piece.classes) for piece in pieces]
    starts = [0] * len(sizes) if shared else [sum(sizes[:k]) for k in range(len(sizes))]
    outputs = torch.full((len(pieces), len(class_names)), -1)
    for k, piece in enumerate(pieces):
        outputs[k, list(piece.classes)] = torch.arange(starts[k], starts[k] + sizes[k])
    total = max(sizes) if shared else sum(sizes)
    task_outputs = tuple(tuple(range(start, start + n)) for start, n in zip(starts, sizes, strict=True))
    return Labelling(outputs, total, task_outputs, names, shared)
