"""Optimisers of a stack of replicas: one on the stacked leaves where that is the same thing, else one each."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl.compiler import light_step
from cl.engine import Engine, SchedulerFactory
from cl.population.stack import Stack
from cl.update import moments

# Rules that treat every number of a parameter alike, so that a stacked parameter learns as its parts would alone.
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.ASGD,
    torch.optim.Rprop,
)


class Separate:
    """Each replica's own optimiser and scheduler, on parameters that are views into the stack."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = list(engines)

    def step(self, lanes: slice, grads: dict[str, Tensor | None]) -> None:
        """Take a step of some lanes down `grads` (n, *shape)."""
        for i, engine in enumerate(self.engines[lanes]):
            for name, parameter in engine.update.parameters.items():
                grad = grads[name]
                parameter.grad = None if grad is None else grad[i]
            if engine.update.optimizer is not None:
                light_step(engine.update.optimizer)()

    def edit_moments(self, lanes: slice, stack: Stack) -> None:
        """Let the strategies edit what their optimisers remember."""
        for engine in self.engines[lanes]:
            engine.update.edit_moments(engine.strategy)

    def schedule(self, lanes: slice) -> None:
        """Take a step of the learning-rate schedules."""
        for engine in self.engines[lanes]:
            if engine.scheduler is not None:
                engine.scheduler.step()

    def sync(self) -> None:
        """Bring the engines' own optimisers up to date: they are."""


class Together:
    """One optimiser and one scheduler for all replicas; see `alike` for when this is the same as one each.

    Args:
        engines: the replicas.
        leaves: stacked parameters (S, *shape), by name.
    """

    def __init__(self, engines: Sequence[Engine], leaves: dict[str, Tensor]) -> None:
        self.engines = list(engines)
        self.leaves = {name: nn.Parameter(leaf) for name, leaf in leaves.items()}
        first = self.engines[0]
        self.optimizer = first.update.make_optimizer(self.leaves.values())
        self.scheduler = _scheduler(first.make_scheduler, self.optimizer, first.scheduler)
        own = first.update.optimizer
        if own is not None:
            self.optimizer.param_groups[0].update(_options(own))
        for name, leaf in self.leaves.items():
            states = [_state(engine, name) for engine in self.engines]
            state = {key: _stacked([s[key] for s in states], leaf[0]) for key in states[0]}
            if state:
                self.optimizer.state[leaf] = state

    def step(self, lanes: slice, grads: dict[str, Tensor | None]) -> None:
        """Take a step of all lanes down `grads` (S, *shape)."""
        for name, leaf in self.leaves.items():
            leaf.grad = grads[name]
        light_step(self.optimizer)()

    def edit_moments(self, lanes: slice, stack: Stack) -> None:
        """Let the strategies edit what the optimiser remembers of them."""
        stack.call("edit_moments", stack.part(lanes), lanes, moments(self.optimizer, self.leaves))

    def schedule(self, lanes: slice) -> None:
        """Take a step of the learning-rate schedule."""
        if self.scheduler is not None:
            self.scheduler.step()

    def sync(self) -> None:
        """Bring the engines' own optimisers and schedulers up to date; moments become views into the stack."""
        for i, engine in enumerate(self.engines):
            own = engine.update.optimizer
            if own is None:
                continue
            own.param_groups[0].update(_options(self.optimizer))
            for name, leaf in self.leaves.items():
                state = {key: _part(value, leaf, i) for key, value in self.optimizer.state.get(leaf, {}).items()}
                if state:
                    own.state[engine.update.parameters[name]] = state
            if engine.scheduler is not None and self.scheduler is not None:
                engine.scheduler.load_state_dict(copy.deepcopy(self.scheduler.state_dict()))


def alike(engines: Sequence[Engine]) -> bool:
    """Return True if one optimiser on stacked leaves does what one optimiser each would do.

    That asks for an elementwise rule, equal options, equal counters of steps, and replicas that step together.
    """
    first = engines[0]
    optimizer = first.update.optimizer
    if type(optimizer) not in ELEMENTWISE or optimizer is None or len(optimizer.param_groups) != 1:
        return False
    if any(p.dim() == 0 for p in first.update.parameters.values()):  # not to be told from a counter
        return False
    return all(_position(e) == _position(first) and _same_optimizer(e, first) for e in engines[1:])


def _position(engine: Engine) -> tuple[int, ...]:
    schedule = engine.schedule
    return engine.step, schedule.n, schedule.batch_size, schedule.steps


def _same_optimizer(a: Engine, b: Engine) -> bool:
    one, two = a.update.optimizer, b.update.optimizer
    if type(one) is not type(two) or one is None or two is None or _options(one) != _options(two):
        return False
    if (a.scheduler is None) != (b.scheduler is None):
        return False
    if a.scheduler is not None and b.scheduler is not None and _facts(a.scheduler) != _facts(b.scheduler):
        return False
    return all(_congruent(_state(a, n), _state(b, n), p) for n, p in a.update.parameters.items())


def _facts(scheduler: torch.optim.lr_scheduler.LRScheduler) -> dict[str, Any]:
    return {k: v for k, v in scheduler.state_dict().items() if isinstance(v, int | float | str | list | type(None))}


def _options(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}


def _state(engine: Engine, name: str) -> dict[str, Any]:
    optimizer = engine.update.optimizer
    return {} if optimizer is None else dict(optimizer.state.get(engine.update.parameters[name], {}))


def _congruent(a: dict[str, Any], b: dict[str, Any], like: Tensor) -> bool:
    """Whether two states have the same keys and, but for tensors shaped like the parameter, the same values."""
    if a.keys() != b.keys():
        return False
    for key, one in a.items():
        two = b[key]
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            if one.shape != two.shape or (one.shape != like.shape and not torch.equal(one, two)):
                return False
        elif one is not two and one != two:
            return False
    return True


def _stacked(values: list[Any], like: Tensor) -> Any:
    first = values[0]
    if isinstance(first, Tensor) and first.shape == like.shape:
        return torch.stack(values)
    return first.clone() if isinstance(first, Tensor) else first


def _part(value: Any, leaf: Tensor, i: int) -> Any:
    if isinstance(value, Tensor):
        return value[i] if value.shape == leaf.shape else value.clone()
    return value


def _scheduler(
    make: SchedulerFactory | None, optimizer: torch.optim.Optimizer, like: torch.optim.lr_scheduler.LRScheduler | None
) -> torch.optim.lr_scheduler.LRScheduler | None:
    if make is None or like is None:
        return None
    scheduler = make(optimizer)
    scheduler.load_state_dict(copy.deepcopy(like.state_dict()))
    return scheduler
