"""S strategies of one structure as one: stacked tensors, one module to call, `vmap` over the replicas.

The strategies stay real modules: their parameters and buffers become views into the stacked tensors, so that host-path
methods work on each of them as always and nothing is copied back.
"""

import copy
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from cl.compiler import STEP, Programs
from cl.population.apart import differing, hide
from cl.population.linear import in_memory_order
from cl.population.number import Number
from cl.strategy import Strategy

log = logging.getLogger(__name__)
Place = tuple[str, str]  # path of the module, name of its attribute
PLAIN = (bool, int, str, type(None))


def structure(strategy: Strategy) -> Hashable:
    """Return what replicas must share to be stacked: types, shapes, every plain attribute, of floats the name alone."""
    tensors = [
        (name, tuple(t.shape), t.dtype, t.requires_grad)
        for name, t in (*strategy.named_parameters(), *strategy.named_buffers())
    ]
    facts = [
        (path, type(module), tuple((n, v) for n, v in sorted(vars(module).items()) if _is_plain(v)))
        for path, module in strategy.named_modules()
    ]
    return tuple(tensors), tuple(facts), frozenset(numbers(strategy))


def numbers(strategy: Strategy) -> dict[Place, float]:
    """Return every float attribute of a strategy and its modules; these may differ between replicas."""
    return {
        (path, name): value
        for path, module in strategy.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, float)
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(_is_plain(v) for v in value))


class Stack:
    """S strategies of equal `structure` whose tensors are views into stacked ones.

    Other attributes may differ where no hot-path method uses them; one that does raises `DiffersError`.

    Args:
        strategies: the replicas, all in training or all in evaluation mode.
        compile: True compiles the methods of a step, where no number differs between the replicas.
        tell: told in one line where it cannot be compiled.

    Attributes:
        tensors: parameters and buffers, (S, *shape) each, by full name; without gradient.
        trainable: names of the parameters that are trained.
    """

    def __init__(
        self, strategies: Sequence[Strategy], compile: bool = False, tell: Callable[[str], None] = log.warning
    ) -> None:
        self.strategies = list(strategies)
        first = self.strategies[0]
        self.trainable = [n for n, p in first.named_parameters() if p.requires_grad]
        apart = dict.fromkeys(place for s in self.strategies[1:] for place in differing(first, s))
        own = [dict((*s.named_parameters(), *s.named_buffers())) for s in self.strategies]
        self.tensors = {name: torch.stack([tensors[name].detach() for tensors in own]) for name in own[0]}
        for i, (strategy, tensors) in enumerate(zip(self.strategies, own, strict=True)):
            _replace(strategy, {id(t): self.tensors[name][i] for name, t in tensors.items()})
        fields = [numbers(s) for s in self.strategies]
        varied = [key for key in fields[0] if any(f[key] != fields[0][key] for f in fields)]
        self.values = {key: [f[key] for f in fields] for key in varied}
        self.numbers = {key: torch.tensor(v, device=first.active.device) for key, v in self.values.items()}
        self.module = _skeleton(first)
        hide(self.module, list(apart))
        # Tensors that stand in two places; to look for them at every step costs a small network 6 % of its time.
        self.tied = len(self.tensors) < _places(self.module)
        if not compile:  # the compiler orders memory itself
            in_memory_order(self.module)
        self.programs: Programs | None = None
        name = type(first).__name__
        if compile and varied:
            which = ", ".join(dict.fromkeys(field for _, field in varied))
            tell(f"training.compile: {name} is not compiled: the replicas of this program differ in {which}")
        elif compile:
            self.programs = Programs(lambda kind: self._mapped(kind, {}), name, tell)

    def __len__(self) -> int:
        return len(self.strategies)

    def part(self, lanes: slice, trainable: bool = False) -> dict[str, Tensor]:
        """Return the tensors of some lanes, sharing memory; `trainable` makes leaves of the trained parameters."""
        found = {name: t[lanes].detach() for name, t in self.tensors.items()}
        if trainable:
            for name in self.trainable:
                found[name].requires_grad_()
        return found

    def call(self, kind: str, tensors: dict[str, Tensor], lanes: slice, *args: Any, shared: Any = ()) -> Any:
        """Call a hot-path method of all lanes at once.

        Args:
            kind: name of the method.
            tensors: from `part`.
            lanes: the same lanes.
            args: arguments with a first dimension of lanes.
            shared: further arguments, the same for all lanes.

        Returns:
            what the method returns, with a first dimension of lanes; () for methods that return None.
        """
        fields = {key: numbers[lanes] for key, numbers in self.numbers.items()}
        if self.programs is not None and kind in STEP:
            return self.programs(kind, tensors, fields, *args)
        values = {key: numbers[lanes] for key, numbers in self.values.items()}
        return self._mapped(kind, values, shared)(tensors, fields, *args)

    def _mapped(self, kind: str, values: dict[Place, list[float]], shared: Any = ()) -> Callable[..., Any]:
        """Return a hot-path method of all lanes at once: from (tensors, numbers that differ, *args).

        Args:
            kind: name of the method.
            values: for each number that differs, its values as Python floats.
            shared: further arguments, the same for all lanes.
        """

        def one(state: dict[str, Tensor], fields: dict[Place, Tensor], *own: Any) -> Any:
            for (path, name), value in fields.items():
                vars(self.module.get_submodule(path))[name] = Number(value, values[path, name])
            result = functional_call(self.module, state, (kind, *own, *shared), tie_weights=self.tied)
            return () if result is None else result

        return vmap(one, randomness="error")


def _replace(strategy: Strategy, views: dict[int, Tensor]) -> None:
    """Make every parameter and buffer of a strategy the view that stands for it; shared tensors stay shared."""
    for module in strategy.modules():
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) in views:
                parameter.data = views[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = views[id(buffer)]


def _places(module: nn.Module) -> int:
    """Return in how many places of a module tensors stand, a shared one in several."""
    every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return len(every)


def _skeleton(strategy: Strategy) -> Strategy:
    """Return a copy without values: what is called, so that the replicas' own attributes are not touched."""
    memo: dict[int, Any] = {}
    for p in strategy.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
    for b in strategy.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return copy.deepcopy(strategy, memo)
