"""Lateral connections between networks of equal blocks, for methods that add a column a task."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from cl.learners.base import Learner
from cl.learners.coded import CodedHead
from cl.learners.sequence import SequenceLearner


class Lateral(nn.Module):
    """What a layer of a new column receives from the layer below in earlier columns (Rusu et al. 2016, eq. 1, 2).

    Args:
        layer: the new column's layer, U is of its kind without a bias; None where U is the layer itself.
        width: units or channels of one column's hidden layer below.
        columns: number of earlier columns.
        kind: ``nonlinear``, U relu(V alpha h), or ``linear``, U V alpha h.
        scale: the scalars alpha, one for each earlier column, start uniform in [0, scale).
    """

    def __init__(self, layer: nn.Module | None, width: int, columns: int, kind: str, scale: float) -> None:
        super().__init__()
        self.kind = kind
        self.alpha = nn.Parameter(scale * torch.rand(columns))
        self.reduce = nn.Parameter(torch.empty(width, columns * width))
        nn.init.kaiming_uniform_(self.reduce, a=5**0.5)
        self.project: nn.Module = nn.Identity()
        if isinstance(layer, nn.Linear | nn.Conv2d | CodedHead):
            self.project = deepcopy(layer)
            weights = self.project.bits if isinstance(self.project, CodedHead) else self.project
            weights.register_parameter("bias", None)
            weights.reset_parameters()

    def forward(self, hidden: Sequence[Tensor]) -> Tensor:
        """Return V alpha h, one column's width wide, from the hidden layer (B, width, ...) of each earlier column."""
        scaled = torch.cat([a * h for a, h in zip(self.alpha, hidden, strict=True)], 1)
        z = torch.einsum("oc,bc...->bo...", self.reduce, scaled)
        return z.relu() if self.kind == "nonlinear" else z


def opened(column: Learner, x: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return what the first block reads, and what blocks and pooling are told besides: of sequences the real steps."""
    if isinstance(column, SequenceLearner):
        steps, real = column.read(x)
        return steps, (real,)
    return column.arranged(x), ()


def first_layer(block: nn.Module) -> nn.Module | None:
    """Return the first weight layer of a plain sequence, None for any other block."""
    layers = [m for m in block if isinstance(m, nn.Linear | nn.Conv2d)] if isinstance(block, nn.Sequential) else []
    return layers[0] if layers else None


def through(block: nn.Module, x: Tensor, z: Tensor, project: nn.Module, told: tuple[Tensor | None, ...] = ()) -> Tensor:
    """Return the block's output for its own input x and the reduced lateral input z, both (B, width, ...)."""
    entry = first_layer(block)
    if entry is None or not isinstance(block, nn.Sequential):
        out: Tensor = block(x + z, *told)
        return out
    waiting = True
    for module in block:
        x = module(x)
        if module is entry:
            x, waiting = x + project(z), False
        elif waiting:
            z = module(z)
    return x
