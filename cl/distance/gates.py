"""What the gates of LSTM and GRU say about how long each unit keeps its state."""

import torch
from torch import Tensor, nn

from cl.distance.gradients import Units
from cl.errors import ConfigError
from cl.learners.cells import Cell
from cl.learners.recurrent import RecurrentBlock
from cl.learners.sequence import SequenceLearner


def gate_values(cell: Cell, x: Tensor) -> dict[str, Tensor]:
    """Return every gate of a cell at every step of x (B, T, D), by name: (B, T, H) in (0, 1)."""
    state, found = cell.initial(x), []
    for projected in cell.project(x).unbind(1):
        found.append(cell.gates(projected, state))
        state = cell.step(projected, state)
    return {name: torch.stack([gates[name] for gates in found], 1) for name in found[0]}


def retention_time(keep: Tensor, real: Tensor | None = None) -> Tensor:
    """Return how many steps each unit keeps its state, until 1/e is left: (H,).

    A state multiplied by f_t at every step decays as the product of the f_t, so tau = -1 / mean log f (Mahto et al.
    2021, Multi-timescale representation learning in LSTM language models, equation 3).

    Args:
        keep: (B, T, H), the fraction kept: an LSTM's forget gate, a GRU's update gate.
        real: (B, T) bool, steps that are not padding; None: all.

    >>> round(retention_time(torch.full((1, 5, 1), 0.5)).item(), 4)  # 1 / ln 2
    1.4427
    """
    logs = keep.clamp_min(torch.finfo(keep.dtype).tiny).log()
    if real is None:
        real = torch.ones_like(keep[..., 0], dtype=torch.bool)
    mean = (logs * real[..., None]).sum((0, 1)) / real.sum()
    return -1 / mean.clamp_max(-torch.finfo(keep.dtype).eps)


def gated(block: nn.Module) -> bool:
    """Return True if a block is a recurrent layer with gates."""
    return isinstance(block, RecurrentBlock) and type(block.cell).gates is not Cell.gates


@torch.no_grad()
def network_gates(
    learner: SequenceLearner, x: Tensor, units: Units = None
) -> tuple[list[dict[str, Tensor]], Tensor | None]:
    """Return the gates of each layer that has some (forward cells) on x (B, *input), and which steps are real.

    Raises:
        ConfigError: the network has no gates.
    """
    if not any(gated(block) for block in learner.blocks):
        raise ConfigError(f"Expected `learner` with gates (lstm, gru, conv_gru), got {type(learner).__name__}")
    entering, real = learner.read(x)
    found = []
    for block, output in zip(learner.blocks, learner.through(entering, real, units), strict=True):
        if isinstance(block, RecurrentBlock) and gated(block):
            found.append(gate_values(block.cell, entering.transpose(1, 2)))
        entering = output
    return found, real


def retention_times(learner: SequenceLearner, x: Tensor, units: Units = None) -> list[Tensor]:
    """Return the retention time of every unit of each layer on x (B, *input), in steps: (H,) each."""
    layers, real = network_gates(learner, x, units)
    return [retention_time(gates["keep"], real) for gates in layers]
