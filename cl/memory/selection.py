"""Which samples of a finished task are kept; on the host, between tasks."""

import torch
import torch.nn.functional as F
from torch import Tensor

HERDING = ("herding", "unit_herding")  # by features
SELECTIONS = ("first", "last", "random", *HERDING)


def select(n: int, count: int, how: str, generator: torch.Generator, features: Tensor | None = None) -> Tensor:
    """Choose samples, the most wanted first, so that a memory that must shrink keeps a prefix.

    Args:
        n: samples there are.
        count: samples wanted; all of them where fewer exist.
        how: ``first`` and ``last`` in stored order (``last``: the newest first), ``random``,
            ``herding``, or ``unit_herding``: herding toward the mean brought to length one, as in the code of van de
            Ven et al. 2022, for features of length one.
        generator: for ``random``.
        features: (n, D), for herding.

    Returns:
        (min(n, count),) int64 positions.
    """
    count = min(n, count)
    if how == "first":
        return torch.arange(count)
    if how == "last":
        return torch.arange(n - 1, n - 1 - count, -1)
    if how == "random":
        return torch.randperm(n, generator=generator)[:count]
    assert features is not None, "herding needs features"
    return herding(features, count, unit=how == "unit_herding").cpu()


def herding(features: Tensor, count: int, unit: bool = False) -> Tensor:
    """Choose samples whose running mean stays as close as possible to the mean of all.

    Rebuffi et al. 2017 (iCaRL), algorithm 4; Welling 2009 (Herding dynamical weights to learn):
    p_k = argmin_x || mu - (phi(x) + sum_{j<k} phi(p_j)) / k ||, no sample twice.

    Args:
        features: (n, D).
        count: how many, at most n.
        unit: True follows the mean brought to length one, which no mean of different unit vectors reaches: samples
            near the middle are taken.

    Returns:
        (count,) int64 positions, in the order of choice.

    >>> herding(torch.tensor([[0.0], [4.0], [5.0], [7.0]]), 3).tolist()  # the mean is 4
    [1, 2, 0]
    """
    features = features.double()
    mean, total = features.mean(0), torch.zeros_like(features[0])
    if unit:
        mean = F.normalize(mean, dim=0)
    squares = features.square().sum(1)
    rounding = 1e-12 * squares.max()  # far above that of a dot product, far below what tells two samples apart
    taken = torch.zeros(len(features), dtype=torch.bool, device=features.device)
    chosen = torch.zeros(count, dtype=torch.long, device=features.device)
    for k in range(count):
        # |mu - (phi + total) / (k + 1)|^2 grows with |phi|^2 - 2 phi . ((k + 1) mu - total): one product a step finds
        # the few samples that can be nearest, and the distance itself settles which of them is.
        score = torch.where(taken, torch.inf, squares - 2 * (features @ ((k + 1) * mean - total)))
        near = (~(score > score.min() + (k + 1) * rounding)).nonzero()[:, 0]
        gap = (mean - (features[near] + total) / (k + 1)).square().sum(1)
        best = near[torch.where(taken[near], torch.inf, gap).argmin()]
        chosen[k] = best
        taken[best] = True
        total = total + features[best]
    return chosen
