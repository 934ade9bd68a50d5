"""How many replicas fit into memory at once."""

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cl.engine import Engine

SHARE = 0.7  # of the free memory that a population may use


def fitting(engines: Sequence[Engine]) -> int:
    """Return how many of the replicas can be trained at once: at least 1."""
    need = bytes_per_replica(engines[0])
    return max(1, min(len(engines), int(SHARE * free_bytes(engines[0].device) / need)))


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * 2**30


def grown(engine: Engine) -> int:
    """Return the bytes of a strategy's state when all tasks are done, at most: what `grow` makes, and `growth`."""
    strategy = copy.deepcopy(engine.strategy)
    for k in range(engine.task, 0 if engine.online else len(engine.stream)):
        strategy.grow(k)
    held = sum(t.numel() * t.element_size() for t in (*strategy.parameters(), *strategy.buffers()))
    return held + strategy.growth()


def bytes_per_replica(engine: Engine) -> int:
    """Estimate what one more replica takes in bytes: stacked state, moments, gradients, activations, test batches.

    The state is as large as it grows. Activations are what the backward pass of one forward pass keeps, counted on a
    copy of the strategy.
    """
    strategy, state = copy.deepcopy(engine.strategy), grown(engine)
    trained = sum(p.numel() * p.element_size() for p in strategy.parameters() if p.requires_grad)
    rows = engine.options.batch_size
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Any:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    sample = next(engine.evaluator.full[0].in_order(1)).x
    x = sample.expand(rows, *sample.shape[1:])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        strategy.learner(x)
    inputs = engine.evaluator.options.batch_size * sample.numel() * sample.element_size()
    return 2 * state + 3 * trained + 2 * sum(kept.values()) + inputs
