"""What the gates of LSTM and GRU say about how long each unit keeps its state."""

import torch
from torch import Tensor

from cl.errors import ConfigError
from cl.learners.cells import Cell
from cl.learners.recurrent import Recurrent, RecurrentBlock


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


@torch.no_grad()
def network_gates(learner: Recurrent, x: Tensor) -> tuple[list[dict[str, Tensor]], Tensor | None]:
    """Return the gates of each layer (forward cells) on x (B, *input), and which steps are real.

    Raises:
        ConfigError: the network has no gates.
    """
    inputs, real = learner.read(x)
    found = []
    for block, output in zip(learner.blocks, learner.through(inputs, real), strict=True):
        assert isinstance(block, RecurrentBlock)
        values = gate_values(block.cell, inputs.transpose(1, 2))
        if not values:
            raise ConfigError(f"Expected `learner` with gates (lstm, gru), got {type(learner).__name__}")
        found.append(values)
        inputs = output
    return found, real


def retention_times(learner: Recurrent, x: Tensor) -> list[Tensor]:
    """Return the retention time of every unit of each layer on x (B, *input), in steps: (H,) each."""
    layers, real = network_gates(learner, x)
    return [retention_time(gates["keep"], real) for gates in layers]
