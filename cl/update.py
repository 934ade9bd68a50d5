"""One optimisation step of the contract, and what a strategy's own `step` may use of it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.compiler import STEP, Programs, light_step
from cl.returned import edited, with_gradient
from cl.strategy import Aux, Moments, Strategy, overrides

log = logging.getLogger(__name__)
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Updater:
    """The plain optimisation step, and what a strategy's own `step` may use of it.

    Args:
        make_optimizer: from parameters to an optimiser.
        clip_norm: largest gradient norm, or None.
        autocast: dtype of mixed precision, or None.
        device: where the learner lives.
        compile: whether the loss, its gradient and what the strategy does in a step are compiled.

    Attributes:
        last: whether the present step is the last one on its batch (`training.updates`).
        tell: takes a line for the user; by itself it logs each line once.
    """

    def __init__(
        self,
        make_optimizer: OptimizerFactory,
        clip_norm: float | None,
        autocast: torch.dtype | None,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        self.make_optimizer, self.clip_norm = make_optimizer, clip_norm
        self.autocast, self.device, self.compile = autocast, device, compile
        self.last = True
        self.tell: Callable[[str], None] = self._log
        self._told: set[str] = set()
        self.optimizer: torch.optim.Optimizer | None = None
        self.parameters: dict[str, nn.Parameter] = {}
        self.programs: dict[Strategy, Programs] = {}  # compiled, where that was asked for

    def _log(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.warning(line)

    def refresh(self, strategy: Strategy, reset: bool) -> None:
        """Follow the strategy's trainable parameters; moments of parameters that stay are kept unless `reset`."""
        old = self.optimizer
        self.parameters = {n: p for n, p in strategy.named_parameters() if p.requires_grad}
        self.optimizer = self.make_optimizer(self.parameters.values()) if self.parameters else None
        if self.compile:
            name = type(strategy).__name__
            # What cannot be vectorised reads numbers in a step: its loss alone is compiled.
            kinds = STEP if strategy.vectorizable is True else ("training_loss",)
            self.programs = {strategy: Programs(lambda kind: partial(strategy.forward, kind), name, self.tell, kinds)}
            if overrides(strategy, "step"):
                self.tell(f"training.compile: {name} has a step of its own, which is not compiled as a whole")
        if old is not None and self.optimizer is not None and not reset:
            for p in self.parameters.values():
                if p in old.state:
                    self.optimizer.state[p] = old.state[p]

    def release(self) -> None:
        """Let go of the parameters and of what the optimiser remembers of them."""
        self.optimizer, self.parameters, self.programs = None, {}, {}

    def training_loss(self, strategy: Strategy, batch: Batch) -> tuple[Tensor, Aux]:
        """Return (loss, aux) of a batch, in mixed precision if asked."""
        program = self.programs.get(strategy, strategy)
        if self.autocast is None:
            result: tuple[Tensor, Aux] = program("training_loss", batch)
            return result
        with torch.autocast(self.device.type, dtype=self.autocast):
            result = program("training_loss", batch)
        return result

    def __call__(self, strategy: Strategy, batch: Batch) -> Tensor:
        """Take one step of the contract: loss, gradients, clipping, optimiser, after_step, remember."""
        loss, aux = self.training_loss(strategy, batch)
        if self.optimizer is not None:
            with_gradient(strategy, loss)
        program = self.programs.get(strategy, strategy)
        edit = None
        if overrides(strategy, "gradients"):

            def edit(grads: dict[str, Tensor]) -> dict[str, Tensor]:
                return edited(strategy, grads, program("gradients", grads, batch, aux))

        self.minimise(loss, edit)
        if overrides(strategy, "after_step"):
            with torch.no_grad():
                program("after_step", batch, aux)
        if self.last and overrides(strategy, "remember"):
            with torch.no_grad():
                program("remember", batch, aux)
        self.edit_moments(strategy)
        return loss.detach()

    def edit_moments(self, strategy: Strategy) -> None:
        """Let a strategy that asks for it edit what the optimiser remembers."""
        if self.optimizer is not None and overrides(strategy, "edit_moments"):
            with torch.no_grad():
                strategy("edit_moments", moments(self.optimizer, self.parameters))

    def minimise(self, loss: Tensor, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None) -> None:
        """Take one optimiser step down `loss` (); `edit` changes the gradients before they are clipped."""
        if self.optimizer is None:
            return
        for p in self.parameters.values():  # `zero_grad` does so, too, and names a profile at every step
            p.grad = None
        torch.autograd.backward(loss)
        self.collect()
        if edit is not None:
            grads = {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in self.parameters.items()}
            with torch.no_grad():
                found = edit(grads)
            for name, p in self.parameters.items():
                p.grad = found[name].contiguous()  # fused optimisers walk both in memory order
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.clip_norm)
        light_step(self.optimizer)()

    def collect(self) -> None:
        """Complete the gradients before they are edited; with one process they are."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the optimiser's state in plain types; {} where nothing is trained."""
        if self.optimizer is None:
            return {}
        state = self.optimizer.state_dict()
        moments = {
            i: {key: value.clone() if isinstance(value, Tensor) else value for key, value in own.items()}
            for i, own in state["state"].items()
        }
        return {**state, "state": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, after `refresh` has built the optimiser."""
        if self.optimizer is not None and state:
            self.optimizer.load_state_dict(state)


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> Moments:
    """Return the tensors of a parameter's shape that an optimiser keeps, by the parameter's name and their own."""
    return {
        name: {key: v for key, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor) and v.shape == p.shape}
        for name, p in parameters.items()
        if p.dim() > 0
    }
