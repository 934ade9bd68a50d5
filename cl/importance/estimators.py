"""How much each parameter matters to what was learned: Fisher information and output sensitivity, sample by sample.

All estimates but ``mean_gradient`` are means over samples of a quantity of one sample's gradient. None depends on a
batch size, which the square of a batch's mean gradient does.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cl import objectives
from cl.batch import Batch
from cl.errors import ConfigError, expect
from cl.importance.per_sample import Scores, gradient_powers, most_samples
from cl.seeding import generator
from cl.streams.data import Data

if TYPE_CHECKING:
    from cl.strategy import Strategy

NORMS = ("squared", "plain")
FISHERS = ("auto", "exact", "sampled", "empirical", "predicted", "mean_gradient")
MOST_LABELS = 500  # steps times outputs; `auto` draws one label a step beyond, where exact would take hours
BATCH = 256  # samples a pass; the result does not depend on it


def fisher(
    strategy: "Strategy", data: Data, kind: str = "auto", samples: int | None = None, batch_size: int = BATCH
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of every trainable parameter of the learner, by name.

    F = mean_n E_y (d log p(y | x_n) / d theta)^2 over the outputs that the scenario allows, where y is:
    ``exact``, every label weighted by its probability; ``sampled``, one label drawn from the model (Martens 2014,
    arXiv 1412.1193); ``empirical``, the true label; ``predicted``, the most probable label (Hsu et al. 2018). ``auto``
    is exact, but sampled where every step has a label and steps times outputs are more than `MOST_LABELS`.
    ``mean_gradient`` is no estimate of it, but what the code of some papers takes in its place (Lopez-Paz and Ranzato
    2017): (mean_n d log p(y_n | x_n) / d theta)^2 with the true labels, which vanishes where training has converged and
    falls with the number of samples.
    Regression is taken as a Gaussian whose negative log-likelihood is the loss.

    Args:
        strategy: in evaluation mode; `logits` and `per_sample` are its own.
        data: samples to average over.
        kind: one of `FISHERS`.
        samples: how many of them, drawn by the run's seed; None takes all.
        batch_size: samples a pass; memory alone depends on it.

    Raises:
        ConfigError: unknown `kind`, or ``predicted`` for regression, where it is zero.
    """
    expect(kind in FISHERS, "strategy.fisher", f"in {list(FISHERS)}", kind)
    if kind == "predicted" and strategy.info.target == "real":
        raise ConfigError("Expected `strategy.fisher` other than 'predicted' for regression, got 'predicted'")
    chosen, outputs = _subset(strategy, data, samples), _trained_outputs(strategy, data)
    if kind == "auto":
        many = strategy.info.target == "steps" and chosen.labels.shape[1] * len(outputs) > MOST_LABELS
        kind = "sampled" if many else "exact"
    if kind == "mean_gradient":
        return _squared_mean(strategy, chosen, batch_size)
    if kind == "exact":
        return _mean(strategy, chosen, partial(_all_labels, strategy, outputs), 2, batch_size)
    draws = torch.rand(chosen.labels.shape, generator=generator(strategy.info.seed, "fisher", data.task))
    relabel = None if kind == "empirical" else partial(_labels, strategy, kind, draws.to(chosen.device))
    return _mean(strategy, chosen, partial(_one_label, strategy), 2, batch_size, relabel)


def output_sensitivity(
    strategy: "Strategy", data: Data, samples: int | None = None, batch_size: int = BATCH, norm: str = "squared"
) -> dict[str, Tensor]:
    """Return mean_n |d ||f(x_n)||^2 / d theta| over the outputs that the scenario allows (Aljundi et al. 2018, eq. 3).

    Args:
        strategy: in evaluation mode; `logits` are its own.
        data: samples to average over; labels are not used.
        samples: how many of them, drawn by the run's seed; None takes all.
        batch_size: samples a pass; memory alone depends on it.
        norm: ``squared``, or ``plain``: ||f(x_n)||.
    """
    chosen = _subset(strategy, data, samples)
    return _mean(strategy, chosen, partial(_norm, strategy, norm), 1, batch_size)


def _mean(
    strategy: "Strategy",
    data: Data,
    scores: Scores,
    power: int,
    batch_size: int,
    relabel: Callable[[int, Batch], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the mean over samples; `relabel` turns (position of the batch's first sample, batch) into labels."""
    sums: dict[str, Tensor] = {}
    start = 0
    for batch in data.in_order(min(batch_size, most_samples(strategy))):
        if relabel is not None:
            batch = batch._replace(y=relabel(start, batch))
        start += len(batch.y)
        for name, value in gradient_powers(strategy, batch, scores, power).items():
            sums[name] = sums[name] + value if name in sums else value
    return {name: value / max(len(data), 1) for name, value in sums.items()}


def _squared_mean(strategy: "Strategy", data: Data, batch_size: int) -> dict[str, Tensor]:
    """Return the square of the mean gradient of the loss over all samples."""
    parameters = {n: p for n, p in strategy.learner.named_parameters() if p.requires_grad}
    sums = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for batch in data.in_order(batch_size):
        with torch.enable_grad():
            loss = strategy.per_sample(strategy("logits", batch.x, batch.task), batch).sum()
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, g in zip(parameters, found, strict=True):
            if g is not None:
                sums[name] += g
    return {n: (total / max(len(data), 1)).square() for n, total in sums.items()}


def _subset(strategy: "Strategy", data: Data, samples: int | None) -> Data:
    expect(samples is None or samples > 0, "strategy.samples", "> 0", samples)
    if samples is None or samples >= len(data):
        return data
    order = torch.randperm(len(data), generator=generator(strategy.info.seed, "importance", data.task))
    return data.subset(order[:samples].to(data.device))


def _one_label(strategy: "Strategy", logits: Tensor, batch: Batch) -> Tensor:
    return strategy.per_sample(logits, batch)[None]


def _trained_outputs(strategy: "Strategy", data: Data) -> list[int]:
    """Return the outputs that a split's samples are trained on; the others have probability zero."""
    allowed = strategy.allowed(torch.tensor([data.task], device=data.device))
    return list(range(strategy.info.n_classes)) if allowed is None else allowed.flatten().nonzero()[:, 0].tolist()


def _all_labels(strategy: "Strategy", classes: list[int], logits: Tensor, batch: Batch) -> Tensor:
    """Return sqrt(p(y)) log p(y) for every label y, whose squared gradients add up to the Fisher information."""
    if strategy.info.target == "real":
        outputs = logits.flatten(1)
        return outputs.T * math.sqrt(2 / outputs.shape[1])
    if strategy.info.target == "class":
        weights, rows = torch.ones(()), [torch.full_like(batch.y, c) for c in classes]
    else:  # time steps are independent given the input, so their informations add up
        weights = 1 / (batch.y != objectives.IGNORE).sum(1).clamp_min(1)
        here = torch.eye(batch.y.shape[1], dtype=torch.bool, device=batch.y.device)
        kept = [step & (batch.y != objectives.IGNORE) for step in here]
        rows = [torch.where(k, c, objectives.IGNORE) for k in kept for c in classes]
    losses = torch.stack([strategy.per_sample(logits, batch._replace(y=y)) for y in rows])
    return losses * weights * (-losses / 2).exp().detach()


def _norm(strategy: "Strategy", norm: str, logits: Tensor, batch: Batch) -> Tensor:
    masked = objectives.mask_logits(logits, strategy.allowed(batch.task))
    squares = torch.where(masked == objectives.MASKED, 0.0, masked).square()
    real = strategy.real(batch.x)
    total = (squares if real is None else squares * real[..., None]).flatten(1).sum(1)[None]
    return total if norm == "squared" else total.clamp_min(1e-30).sqrt()


@torch.no_grad()
def _labels(strategy: "Strategy", kind: str, draws: Tensor, start: int, batch: Batch) -> Tensor:
    """Return labels drawn from the model by uniform `draws` (one for each label of the data), or its likeliest."""
    logits: Tensor = strategy("logits", batch.x, batch.task)
    draws = draws[start : start + len(batch.y)]
    if strategy.info.target == "real":
        spread = math.sqrt(logits[0].numel())  # sqrt(2) sigma, with sigma^2 = D / 2
        return logits + spread * torch.erfinv((2 * draws - 1).clamp(-0.9999999, 0.9999999))
    logits = objectives.mask_logits(logits, strategy.allowed(batch.task))
    if kind == "predicted":
        labels = logits.argmax(-1)
    else:
        below = logits.softmax(-1).cumsum(-1)
        labels = (below <= draws[..., None] * below[..., -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
    return torch.where(batch.y == objectives.IGNORE, batch.y, labels)
