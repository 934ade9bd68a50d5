"""Sums of powers of per-sample gradients of a whole learner: layer formulas where they hold, `torch.func` elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from cl.batch import Batch
from cl.importance import layers
from cl.learners.sequence import SequenceLearner

if TYPE_CHECKING:
    from cl.strategy import Strategy

# From logits (B, ...) and the batch to V scores of each sample: (V, B).
Scores = Callable[[Tensor, Batch], Tensor]
FEW = 16  # samples: fewer are not worth taking together, see `at_once`


def gradient_powers(strategy: "Strategy", batch: Batch, scores: Scores, power: int) -> dict[str, Tensor]:
    """Return sum_n sum_v |d score_v(x_n) / d theta|^power for every trainable parameter of the learner, by name.

    The network must treat samples independently (evaluation mode). Linear and convolution layers that are called once
    cost one backward pass a score; all other parameters take per-sample gradients by `vmap`, or one sample at a time
    where an operation has no batching rule.

    Args:
        strategy: its `logits` give the outputs, gates included.
        batch: B samples.
        scores: see `Scores`; it must treat samples independently.
        power: 1 or 2.
    """
    learner = strategy.learner
    names = {id(p): n for n, p in learner.named_parameters() if p.requires_grad}
    parameters = {n: p for n, p in learner.named_parameters() if p.requires_grad}
    sums = {n: torch.zeros_like(p) for n, p in parameters.items()}
    with torch.enable_grad(), _probes(learner) as probes:
        rows = scores(strategy("logits", batch.x, batch.task), batch)
    direct = _direct(learner, probes, len(batch.x))
    covered = {names[id(p)] for layer in direct for p in layer.parameters() if id(p) in names}
    rest = {n: p for n, p in parameters.items() if n not in covered}
    inputs = [probes[layer][0][1] for layer in direct] + list(rest.values())
    if not inputs or not rows.requires_grad:
        return sums
    used: set[str] = set()
    outputs: dict[nn.Module, Tensor] = {}
    for row in rows:
        found = torch.autograd.grad(row.sum(), inputs, retain_graph=True, allow_unused=True)
        used |= {n for n, g in zip(rest, found[len(direct) :], strict=True) if g is not None}
        for layer, g in zip(direct, found, strict=False):
            a = probes[layer][0][0]
            if g is not None and layers.separable(layer, a):
                outputs[layer] = outputs.get(layer, torch.zeros_like(g)) + layers.raised(g, power)
            elif g is not None:
                _add(sums, names, layer, layers.power_sums(layer, a, g, power))
    for layer, raised in outputs.items():
        _add(sums, names, layer, layers.product_sums(probes[layer][0][0], raised, power))
    if used:
        for name, value in _general(strategy, batch, scores, {n: rest[n] for n in used}, power).items():
            sums[name] += value
    return sums


def _add(sums: dict[str, Tensor], names: dict[int, str], layer: nn.Module, found: dict[str, Tensor]) -> None:
    """Add what was found for the weight and bias of a layer, where they are trained, to `sums`."""
    for leaf, parameter in layer.named_parameters(recurse=False):
        if id(parameter) in names:
            sums[names[id(parameter)]] += found[leaf]


Probes = dict[nn.Module, list[tuple[Tensor, Tensor]]]


@contextmanager
def _probes(learner: nn.Module) -> Iterator[Probes]:
    """Record, for every call of a supported layer, its input and a zero added to its output.

    The gradient of the zero is the gradient of the output, also where the next operation overwrites that output.
    """
    calls: Probes = {}

    def record(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        probe = torch.zeros_like(out, requires_grad=True)
        calls.setdefault(layer, []).append((args[0].detach(), probe))
        return out + probe

    handles = [m.register_forward_hook(record) for m in learner.modules() if layers.supported(m)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _direct(learner: nn.Module, probes: Probes, size: int) -> list[nn.Module]:
    """Return the layers whose formula holds: called once, on the B samples, with weights of their own."""
    owners: dict[int, int] = {}
    for module in learner.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [
        layer
        for layer, calls in probes.items()
        if len(calls) == 1
        and len(calls[0][0]) == size
        and calls[0][0].dim() >= 2
        and all(owners[id(p)] == 1 for p in layer.parameters(recurse=False))
    ]


def _general(
    strategy: "Strategy", batch: Batch, scores: Scores, parameters: dict[str, nn.Parameter], power: int
) -> dict[str, Tensor]:
    """Return the sums of `gradient_powers` for `parameters`, by gradients of every sample."""
    values = {f"learner.{n}": p.detach() for n, p in parameters.items()}

    def score(v: int, values: dict[str, Tensor], x: Tensor, y: Tensor, task: Tensor) -> Tensor:
        one = Batch(x[None], y[None], task[None], batch.key)
        logits = functional_call(strategy, values, ("logits", one.x, one.task))
        return scores(logits, one)[v, 0]

    sums = {n: torch.zeros_like(p) for n, p in parameters.items()}
    first = Batch(batch.x[:1], batch.y[:1], batch.task[:1], batch.key)
    count = len(scores(strategy("logits", first.x, first.task), first))
    size = at_once(strategy, parameters)
    pieces = list(zip(*(torch.split(t, size) for t in (batch.x, batch.y, batch.task)), strict=True))
    if size == 1:
        for x, y, task in pieces:
            _add_one(sums, strategy, Batch(x, y, task, batch.key), scores, parameters, power)
        return sums
    for v in range(count):
        gradient = grad(partial(score, v))
        for piece in pieces:
            try:
                found = [vmap(gradient, (None, 0, 0, 0))(values, *piece)]
            except RuntimeError:  # an operation without a batching rule, such as a fused recurrent layer
                found = [gradient(values, *sample) for sample in zip(*piece, strict=True)]
                found = [{n: g[None] for n, g in grads.items()} for grads in found]
            for grads in found:
                for name, g in grads.items():
                    sums[name.removeprefix("learner.")] += layers.raised(g, power).sum(0)
    return sums


def at_once(strategy: "Strategy", parameters: dict[str, nn.Parameter]) -> int:
    """Return how many samples' gradients `vmap` may take together: a sequence holds them for every step of time.

    Fewer than `FEW` are taken one by one: plain backward passes are then quicker, and need less memory (a recurrent
    network over 100 steps, 3 samples at a time, left gigabytes behind in the allocator).
    """
    steps = strategy.learner.length if isinstance(strategy.learner, SequenceLearner) else 1
    together = layers.CHUNK // (steps * sum(p.numel() for p in parameters.values()))
    return together if together >= FEW else 1


def _add_one(
    sums: dict[str, Tensor],
    strategy: "Strategy",
    one: Batch,
    scores: Scores,
    parameters: dict[str, nn.Parameter],
    power: int,
) -> None:
    """Add the gradients of one sample to `sums`, by plain backward passes (fused layers keep their kernels)."""
    with torch.enable_grad():
        rows = scores(strategy("logits", one.x, one.task), one)
    for row in rows:
        found = torch.autograd.grad(row.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
        for name, g in zip(parameters, found, strict=True):
            if g is not None:
                sums[name] += layers.raised(g, power)
