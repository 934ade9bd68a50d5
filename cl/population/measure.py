"""Measures a group of replicas as one; the population's side of `cl.evaluator`."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl import objectives
from cl.batch import Batch
from cl.engine import Engine
from cl.evaluator import evaluating
from cl.population.batches import same_samples
from cl.population.stack import Stack
from cl.returned import scores_of
from cl.streams.data import Data


def measure(engines: Sequence[Engine], stack: Stack | None, point: bool = False) -> None:
    """Measure replicas that are at the same task and let their engines record it.

    Args:
        engines: the replicas.
        stack: their stack, or None to measure one after another.
        point: True for a point of the within-task curve, False for a row of the accuracy matrix.
    """
    first = engines[0]
    row = first.task + 1 if first.begun else 0
    tasks = first.evaluator.curve_tasks(first.task) if point else list(range(len(first.stream)))
    splits = [[e.evaluator.fixed[j] if point else e.evaluator.full[j] for e in engines] for j in tasks]
    if stack is None or any(len(d) != len(same[0]) for same in splits for d in same):
        for engine in engines:
            if point:
                engine.evaluate_point()
            else:
                engine.evaluate_row(row)
        return
    started = time.perf_counter()
    values = _means(engines, stack, tasks, splits)
    seconds = (time.perf_counter() - started) / len(engines)
    for engine, means in zip(engines, values, strict=True):
        if point:
            accuracy = np.full(len(engine.stream), np.nan)
            accuracy[tasks] = means[:, 0]
            engine.record_point(accuracy, seconds)
        else:
            engine.record_row(row, means[:, 0], means[:, 1], seconds)


def before_learning(engines: Sequence[Engine], stack: Stack, lanes: slice, batch: Batch) -> Tensor:
    """Return the accuracy of the replicas in `lanes` on the batches (n, B, ...) they are about to learn: (n,)."""
    first = engines[lanes.start]
    told = first.task if first.stream.info.scenario == "task" else None
    with evaluating(stack.module), torch.no_grad():
        scores = stack.call("predict", stack.part(lanes), lanes, batch.x, shared=(told,)).float()
        replicas, samples = batch.y.shape[:2]
        y = batch.y.flatten(0, 1)
        found: Tensor = first.evaluator.score(scores.flatten(0, 1), y)
    return found.reshape(replicas, samples).mean(1)


def _means(
    engines: Sequence[Engine], stack: Stack, tasks: Sequence[int], splits: Sequence[Sequence[Data]]
) -> NDArray[np.float64]:
    """Return (mean score, mean loss) of each replica and task: (S, len(tasks), 2)."""
    info, options = engines[0].stream.info, engines[0].evaluator.options
    with evaluating(stack.module), torch.no_grad():
        found = []
        for j, same in zip(tasks, splits, strict=True):
            told = j if info.scenario == "task" else None
            total = torch.zeros(len(engines), 2, device=same[0].device)
            if same_samples(same):
                for batch in same[0].in_order(options.batch_size):
                    scores = stack.call("predict", stack.tensors, slice(None), shared=(batch.x, told)).float()
                    total += _sums(scores, batch.y.expand(len(engines), *batch.y.shape), engines[0])
            else:
                for batches in zip(*(d.in_order(options.batch_size) for d in same), strict=True):
                    x, y = (torch.stack([getattr(b, field) for b in batches]) for field in ("x", "y"))
                    scores = stack.call("predict", stack.tensors, slice(None), x, shared=(told,)).float()
                    total += _sums(scores, y, engines[0])
            found.append(total / len(same[0]))
    values: NDArray[np.float64] = torch.stack(found, 1).double().cpu().numpy()
    return values


def _sums(scores: Tensor, y: Tensor, engine: Engine) -> Tensor:
    """Return the sums of scores and losses of each replica: (S, 2)."""
    replicas, samples = y.shape[:2]
    info = engine.stream.info
    scores, y = scores_of(engine.strategy, scores.flatten(0, 1), replicas * samples, info.n_classes), y.flatten(0, 1)
    score = engine.evaluator.score(scores, y)
    loss = objectives.per_sample_loss(scores, y, info.target)
    return torch.stack([score, loss], 1).reshape(replicas, samples, 2).sum(1)
