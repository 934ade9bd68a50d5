"""Several strategies at work on one learner: replay and EWC, XdG and SI."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.memory import Memory
from cl.strategy import Aux, Moments, Strategy, overrides
from cl.streams.base import StreamInfo, Task

# What only one part may replace. It then speaks for all parts: a Fisher information sees the gates of XdG.
ONE = (
    ("logits", "predict", "network"),
    ("loss",),
    ("criterion",),
    ("per_sample",),
    ("validation_loss",),
    ("allowed",),
    ("allowed_at_test",),
    ("training_data",),
)
SEES = ("current", "past", "all")


class Combined(Strategy):
    """Penalties add up; gradients, updates after a step and work between tasks go through the parts in order.

    The rest can only be done in one way: at most one part may have its own loss, logits, prediction, outputs in use or
    training data, and at most one may change the network's structure. Where one has its own logits (gates, columns),
    the others must ask for those (`Strategy.bare`).

    Args:
        learner: shared by all parts.
        info: see `Strategy`.
        parts: for each part a name and a function of (learner, info), such as a strategy class or, from a
            configuration, a mapping with `_target_`, `_partial_: true` and fields.

    Raises:
        ConfigError: two parts claim the same, a part has an optimisation step of its own, or what one part replays
            would be stored by another.
    """

    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    protects: ClassVar[bool] = True

    def __init__(self, learner: Learner, info: StreamInfo, parts: Mapping[str, Callable[..., Strategy]]) -> None:
        super().__init__(learner, info)
        right = isinstance(parts, Mapping) and len(parts) > 0 and all(callable(part) for part in parts.values())
        expect(right, "strategy.parts", "names with functions of (learner, info) (`_partial_: true`)", parts)
        made = {name: part(learner=learner, info=info) for name, part in parts.items()}
        for name, part in made.items():
            if overrides(part, "step"):
                raise ConfigError(f"Expected `strategy.parts` without a step of their own, got {name} ({_name(part)})")
        self.parts = nn.ModuleDict(made)
        for methods in ONE:
            claimant = _claim(made, *methods)
            others = [self, *(part for part in made.values() if part is not claimant)]
            for module in others if claimant is not None else ():
                module.__dict__.update({method: getattr(claimant, method) for method in methods})
        gating = _claim(made, "logits")
        for name, part in made.items():
            if part.bare and gating not in (None, part):
                who = f"{name} ({_name(part)}) beside {_name(gating)}"
                raise ConfigError(f"Expected `strategy.parts` that all see the gates or columns of one, got {who}")
        for method in ("grow", "enter"):
            _claim(made, method)
        _one_store(made)
        memories = [memory for part in made.values() for memory in _memories(part)]
        for i, memory in enumerate(memories[1:], 1):
            memory.draws = f"/{i}"
        reasons = [part.vectorizable for part in made.values() if part.vectorizable is not True]
        # Facts of this combination, where those of the class speak for any.
        self.__dict__["sees"] = max((part.sees for part in made.values()), key=SEES.index)
        self.__dict__["needs_task_id"] = any(part.needs_task_id for part in made.values())
        self.__dict__["vectorizable"] = reasons[0] if reasons else True

    def growth(self) -> int:
        """Return the bytes that the parts may yet add."""
        return sum(part.growth() for _, part in self.each())

    def each(self, method: str | None = None) -> list[tuple[str, Strategy]]:
        """Return (name, part) of all parts, or of those that replace a method of the contract."""
        found = [(name, part) for name, part in self.parts.items() if isinstance(part, Strategy)]
        return [(name, part) for name, part in found if method is None or overrides(part, method)]

    def penalty(self) -> Tensor:
        """Return the sum of the parts' penalties: ()."""
        none = torch.zeros((), device=self.active.device)
        return torch.stack([none, *(part.penalty() for _, part in self.each("penalty"))]).sum()

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Hand the gradients from part to part; each knows the learner's parameters and its own."""
        for name, part in self.each("gradients"):
            own = f"parts.{name}."
            mine = {n.removeprefix(own): g for n, g in grads.items() if n.startswith(("learner.", own))}
            edited = part.gradients(mine, batch, aux)
            grads = grads | {n if n.startswith("learner.") else own + n: g for n, g in edited.items()}
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Let every part update itself."""
        for _, part in self.each("after_step"):
            part.after_step(batch, aux)

    def edit_moments(self, moments: Moments) -> None:
        """Let every part edit what the optimiser remembers of the learner's parameters and its own."""
        for name, part in self.each("edit_moments"):
            own = f"parts.{name}."
            part.edit_moments({n.removeprefix(own): m for n, m in moments.items() if n.startswith(("learner.", own))})

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Let every part offer the batch to its memory."""
        for _, part in self.each("remember"):
            part.remember(batch, aux)

    def enter(self, k: int) -> None:
        """Note in every part that task k begins; a part with its own view of the active outputs decides for all."""
        super().enter(k)
        for _, part in self.each():
            part.enter(k)
        for _, decides in self.each("enter"):
            for module in (self, *(part for _, part in self.each())):
                module.active.copy_(decides.active)

    def grow(self, k: int) -> None:
        """Let the part that changes the structure do so; the others follow to the network it leaves."""
        for _, part in self.each("grow"):
            part.grow(k)
            for module in (self, *(other for _, other in self.each())):
                if module.learner is not part.learner:
                    module.learner = part.learner
                    module.follow()

    def train(self, mode: bool = True) -> "Combined":
        """Let parts that keep something in evaluation mode have the last word."""
        super().train(mode)
        for _, part in self.each("train"):
            part.train(mode)
        return self

    def begin_task(self, task: Task) -> None:
        """Prepare every part."""
        for _, part in self.each("begin_task"):
            part.begin_task(task)

    def end_task(self, task: Task) -> None:
        """Consolidate every part."""
        for _, part in self.each("end_task"):
            part.end_task(task)


def _name(part: Strategy) -> str:
    return type(part).__name__


def _one_store(parts: Mapping[str, Strategy]) -> None:
    """Refuse a part that stores what it is shown beside one whose training data hold what is stored already."""
    storing = [name for name, part in parts.items() if overrides(part, "remember") and _memories(part)]
    for name, part in parts.items():
        if overrides(part, "training_data") and (part.sees != "current" or _memories(part)):
            for other in storing:
                if other != name:
                    raise ConfigError(
                        f"Expected `strategy.parts` of which none stores what another replays, got {other} "
                        f"({_name(parts[other])}) beside {name} ({_name(part)}), whose training data hold old samples"
                    )


def _memories(part: Strategy) -> list[Memory]:
    return [module for module in part.modules() if isinstance(module, Memory)]


def _claim(parts: Mapping[str, Strategy], *methods: str) -> Strategy | None:
    """Return the one part that replaces any of these methods, or None."""
    found = {name: part for name, part in parts.items() if any(overrides(part, method) for method in methods)}
    if len(found) > 1:
        who = " and ".join(f"{name} ({_name(part)})" for name, part in found.items())
        raise ConfigError(f"Expected `strategy.parts` of which at most one replaces `{methods[0]}`, got {who}")
    return next(iter(found.values()), None)
