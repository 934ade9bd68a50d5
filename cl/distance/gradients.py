"""Gradient flow against distance, exact: how much a state or an output depends on what was d steps before."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from cl.learners.cells import Cell, State
from cl.learners.recurrent import RecurrentBlock
from cl.learners.sequence import SequenceLearner

CHUNK = 4  # samples whose Jacobians are taken at a time
Units = Sequence[Tensor] | None  # gates on the units of each block, see `cl.learners.base.Learner.activations`


@torch.no_grad()  # of the parameters, whose graph would be kept beside that of the states
def state_jacobians(cell: Cell, x: Tensor) -> Tensor:
    """Return the spectral norm of d s_T / d s_(T - d) for d = 0 ... T: (B, T + 1).

    s is the whole state (for an LSTM h and c), T the last step; products of the exact one-step Jacobians (Pascanu,
    Mikolov, Bengio 2013, equation 5). Cost: T Jacobians of size (n H)^2 a sample.

    Args:
        cell: a recurrent cell.
        x: (B, T, D), its inputs.
    """
    projected = cell.project(x)
    states = [cell.initial(x), *cell.scan(x)]
    parts = len(states[0])

    def step(flat: Tensor, now: Tensor) -> Tensor:
        state: State = tuple(part[None] for part in flat.chunk(parts))
        return torch.cat(cell.step(now[None], state), 1)[0]

    size = parts * cell.size
    product = torch.eye(size, dtype=x.dtype, device=x.device).expand(len(x), size, size)
    norms = [torch.ones(len(x), dtype=x.dtype, device=x.device)]
    for t in reversed(range(x.shape[1])):
        before = torch.cat(states[t], 1)
        jacobian: Tensor = vmap(jacrev(step))(before, projected[:, t])
        product = product @ jacobian
        norms.append(torch.linalg.matrix_norm(product, ord=2))
    return torch.stack(norms, 1)


@torch.no_grad()  # of the parameters, as above: for an NTM a tenth of the memory
def input_jacobians(learner: SequenceLearner, x: Tensor, units: Units = None) -> Tensor:
    """Return the Frobenius norm of d features / d input at distance d = 0 ... T - 1 from the last real step: (B, T).

    Features are what the head reads, at the last real step where every step has an output; inputs are the embedded
    tokens or the numbers read. NaN before the first step. Works for every learner of sequences.

    Args:
        learner: the network, in evaluation mode.
        x: (B, *input).
        units: gates of the blocks.
    """
    inputs, real = learner.read(x)

    def features(one: Tensor) -> Tensor:
        out = learner.pool(learner.through(one.T[None], None, units)[-1])
        return out[0, -1] if learner.each else out[0]

    def norms(steps: Tensor) -> Tensor:
        jacobians: Tensor = vmap(jacrev(features), chunk_size=CHUNK)(steps)  # (B, features, T, D)
        return jacobians.square().sum((1, 3)).sqrt().flip(1)

    return unpadded(norms, inputs.transpose(1, 2), real, inputs.shape[2])


def unpadded(function: Callable[[Tensor], Tensor], steps: Tensor, real: Tensor | None, length: int) -> Tensor:
    """Return function(steps) (B, length) with every sample as it is without its padding; NaN beyond what that gives.

    Args:
        function: from samples of one length (b, T', D) to (b, L), L <= `length`.
        steps: (B, T, D).
        real: (B, T) bool, steps that are not padding; they come first. None: all.
        length: columns.
    """
    if real is None:
        return function(steps)
    sizes = real.sum(1)
    found = steps.new_full((len(steps), length), torch.nan)
    for size in sorted({int(n) for n in sizes} - {0}):
        own = (sizes == size).nonzero()[:, 0]
        values = function(steps[own, :size])
        found[own[:, None], torch.arange(values.shape[1], device=own.device)] = values
    return found


@torch.no_grad()
def state_norms(learner: SequenceLearner, x: Tensor, units: Units = None) -> list[Tensor]:
    """Return `state_jacobians` of every recurrent layer (forward cells) on x (B, *input): (B, T + 1) each.

    Distances count from the last real step; NaN beyond the first.
    """
    entering, real = learner.read(x)
    length = entering.shape[2] + 1
    found = []
    for block, output in zip(learner.blocks, learner.through(entering, real, units), strict=True):
        if isinstance(block, RecurrentBlock):
            steps = entering.transpose(1, 2)
            found.append(unpadded(partial(state_jacobians, block.cell), steps, real, length))
        entering = output
    return found


SMALLEST = 1e-30  # norms below it have lost what they were made of: single precision ends at 1e-38


def timescale(norms: Tensor) -> Tensor:
    """Return tau of the best exponential exp(-d / tau) to norms (B, L) at d = 0 ... L - 1, in steps: (B,).

    Least squares of the logarithm over the distances that have a norm above `SMALLEST`; infinite or negative where
    norms do not fall, 0 where there is none but the first.
    """
    there = norms > SMALLEST  # False for NaN
    d = torch.arange(norms.shape[1], dtype=norms.dtype, device=norms.device).expand_as(norms)
    d = torch.where(there, d - (d * there).sum(1, keepdim=True) / there.sum(1, keepdim=True), 0.0)
    logs = torch.where(there, norms, 1.0).clamp_min(torch.finfo(norms.dtype).tiny).log()
    tau = -d.square().sum(1) / (logs * d).sum(1)
    return torch.where((there.sum(1) <= 1) & (norms <= SMALLEST).any(1), 0.0, tau)
