"""What a step of meta-training looks at: a trajectory to learn along, samples to judge by, new rows of the head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def trajectory(
    members: Sequence[Tensor], n: int, g: torch.Generator, classes: int, samples: int, held_out: int, random: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw a trajectory, class after class, and the samples to judge by once it was learned; none is in both.

    Args:
        members: for each class the rows that belong to it, at least `samples` + `held_out`.
        n: number of all rows.
        g: draws.
        classes: classes of the trajectory, or all of them where there are fewer.
        samples: samples of each on the trajectory.
        held_out: other samples of each to judge by.
        random: samples to judge by besides, of all rows that are not on the trajectory, with replacement.

    Returns:
        the rows of the trajectory (classes * samples,) in its order, and the others (classes * held_out + random,).
    """
    chosen = [members[c] for c in torch.randperm(len(members), generator=g)[:classes]]
    drawn = [rows[torch.randperm(len(rows), generator=g)[: samples + held_out].to(rows.device)] for rows in chosen]
    path, others = (torch.cat(part) for part in zip(*(rows.split([samples, held_out]) for rows in drawn), strict=True))
    if random:
        free = torch.ones(n, dtype=torch.bool, device=path.device)
        free[path] = False
        rest = free.nonzero()[:, 0]
        others = torch.cat([others, rest[torch.randint(len(rest), (random,), generator=g).to(rest.device)]])
    return path, others


@torch.no_grad()
def renew(head: nn.Linear, classes: Tensor, g: torch.Generator) -> None:
    """Draw the weights of `classes` (n,) in a head anew: normal, with variance 2 / D; their biases stay."""
    rows = torch.randn(len(classes), head.in_features, generator=g) * (2 / head.in_features) ** 0.5
    head.weight[classes] = rows.to(head.weight)
