"""Gradient flow against distance, exact: how much a state or an output depends on what was d steps before."""

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from cl.learners.cells import Cell, State
from cl.learners.sequence import SequenceLearner

CHUNK = 4  # samples whose Jacobians are taken at a time


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
def input_jacobians(learner: SequenceLearner, x: Tensor) -> Tensor:
    """Return the Frobenius norm of d features / d input at distance d = 0 ... T - 1 from the last step: (B, T).

    Features are what the head reads, at the last step where every step has an output; inputs are the embedded tokens or
    the numbers read. Works for every learner of sequences.

    Args:
        learner: the network, in evaluation mode.
        x: (B, *input), sequences of full length.
    """
    steps, _ = learner.read(x)

    def features(one: Tensor) -> Tensor:
        out = learner.pool(learner.through(one[None], None)[-1])
        return out[0, -1] if learner.each else out[0]

    jacobians: Tensor = vmap(jacrev(features), chunk_size=CHUNK)(steps)  # (B, features, D, T)
    return jacobians.square().sum((1, 2)).sqrt().flip(1)


def timescale(norms: Tensor) -> Tensor:
    """Return tau of the best exponential exp(-d / tau) to norms (B, L) at d = 0 ... L - 1, in steps: (B,).

    Least squares of the logarithm; negative where the norms grow.
    """
    d = torch.arange(norms.shape[1], dtype=norms.dtype, device=norms.device)
    d = d - d.mean()
    logs = norms.clamp_min(torch.finfo(norms.dtype).tiny).log()
    return -d.square().sum() / (logs * d).sum(1)
