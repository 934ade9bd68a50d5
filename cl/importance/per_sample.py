"""Sums of powers of per-sample gradients of a whole learner: formulas where they hold, `torch.func` elsewhere."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from cl.batch import Batch
from cl.importance import layers
from cl.importance.formulas import FORMULAS, Formula
from cl.learners.sequence import SequenceLearner
from cl.products import linear
from cl.transform import written_out

if TYPE_CHECKING:
    from cl.strategy import Strategy

# From logits (B, ...) and the batch to V scores of each sample: (V, B).
Scores = Callable[[Tensor, Batch], Tensor]
FEW = 16  # samples: fewer are not worth taking together, see `at_once`
STEPS = 32768  # samples times steps of time of a pass: what is kept of every step for the way back
Role = tuple[nn.Parameter, Formula, str]  # a parameter, and what it is to a formula: ``weight`` or ``bias``


def gradient_powers(strategy: "Strategy", batch: Batch, scores: Scores, power: int) -> dict[str, Tensor]:
    """Return sum_n sum_v |d score_v(x_n) / d theta|^power for every trainable parameter of the learner, by name.

    The network must treat samples independently (evaluation mode), and have them as first dimension. Parameters that
    linear maps, convolutions, embeddings and normalisations alone use (`FORMULAS`), once or at every step of time, cost
    one backward pass a score; all others take per-sample gradients by `vmap`, or one sample at a time where an
    operation has no batching rule.

    Args:
        strategy: its `logits` give the outputs, gates included.
        batch: B samples.
        scores: see `Scores`; it must treat samples independently.
        power: 1 or 2.
    """
    names = {p: n for n, p in strategy.learner.named_parameters() if p.requires_grad}
    sums = {n: torch.zeros_like(p) for p, n in names.items()}
    with torch.enable_grad():
        with written_out(), _Uses(names, len(batch.x)) as uses:
            logits = strategy("logits", batch.x, batch.task)
        rows = scores(logits, batch)
    if not names or not rows.requires_grad:
        return sums
    roles, rest = uses.roles()
    probes = [call.probe for call in uses.calls]
    outputs: dict[Role, Tensor] = {}  # of separable calls: scores are added up before the one product
    for row in rows:
        found = torch.autograd.grad(row.sum(), [*probes, *names], retain_graph=True, allow_unused=True)
        rest |= {p for p, g in zip(names, found[len(probes) :], strict=True) if g is not None}
        for (parameter, formula, leaf), calls in roles.items():
            pairs = [(uses.calls[i].given, g) for i in calls if (g := found[i]) is not None]
            if leaf == "weight" and len(calls) == len(pairs) == 1 and formula.separable(pairs[0][0]):
                g = layers.raised(pairs[0][1], power)
                role = (parameter, formula, leaf)
                outputs[role] = outputs[role] + g if role in outputs else g
            elif pairs and parameter not in rest:
                sums[names[parameter]] += getattr(formula, leaf)(pairs, power)
    for (parameter, formula, leaf), g in outputs.items():
        given = uses.calls[roles[parameter, formula, leaf][0]].given
        sums[names[parameter]] += formula.product(given, g, power)
    if rest:
        sums |= _general(strategy, batch, scores, {n: p for p, n in names.items() if p in rest}, power)
    return sums


def most_samples(strategy: "Strategy") -> int:
    """Return how many samples `gradient_powers` should take at most: of a sequence, every step is kept."""
    return max(1, STEPS // _length(strategy))


def _length(strategy: "Strategy") -> int:
    """Return the steps of time of a sample; 1 where there is no time."""
    return strategy.learner.length if isinstance(strategy.learner, SequenceLearner) else 1


@dataclass(frozen=True)
class _Call:
    """A use of parameters: the arguments by name, and a zero that was added to the output.

    The gradient of the zero is the gradient of the output, also where the next operation overwrites that output.
    """

    formula: Formula
    given: dict[str, Any]
    probe: Tensor


class _Uses(TorchFunctionMode):
    """Records the calls of functions with a formula that use parameters, and cuts these uses off autograd.

    What autograd then finds for a parameter comes from other uses.

    Args:
        parameters: those of interest.
        size: B, the samples.
    """

    def __init__(self, parameters: Collection[nn.Parameter], size: int) -> None:
        super().__init__()
        self.parameters, self.size = parameters, size
        self.calls: list[_Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and note it where its formula holds."""
        kwargs = kwargs or {}
        formula = FORMULAS.get(func)
        given = None if formula is None else formula.read(args, kwargs, self.size)
        if formula is None or given is None:
            return func(*args, **kwargs)
        trained = [t for t in (given["weight"], given["bias"]) if t is not None and t.requires_grad]
        if not trained or not all(t in self.parameters for t in trained):
            return func(*args, **kwargs)

        def cut(value: Any) -> Any:
            return value.detach() if any(value is t for t in trained) else value

        if func is F.linear:
            out = linear(*(cut(given[name]) for name in ("input", "weight", "bias")))
        else:
            out = func(*map(cut, args), **{k: cut(v) for k, v in kwargs.items()})
        probe = torch.zeros_like(out, requires_grad=True)
        self.calls.append(_Call(formula, {**given, "input": given["input"].detach()}, probe))
        return out + probe

    def roles(self) -> tuple[dict[Role, list[int]], set[nn.Parameter]]:
        """Return the calls in which a parameter has a role, by their number, and the parameters with several roles."""
        found: dict[Role, list[int]] = {}
        for i, call in enumerate(self.calls):
            for leaf in ("weight", "bias"):
                if call.given[leaf] is not None and call.given[leaf].requires_grad:
                    found.setdefault((call.given[leaf], call.formula, leaf), []).append(i)
        parameters = [parameter for parameter, _, _ in found]
        return found, {p for p in parameters if sum(p is other for other in parameters) > 1}


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
    together = layers.CHUNK // (_length(strategy) * sum(p.numel() for p in parameters.values()))
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
