"""A quadratic penalty on the change of parameters, weighted by their importance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl.parameters import PerParameter, held, scale_and_add
from cl.transform import transformed


class _Weighted(torch.autograd.Function):
    """sum_i importance_i change_i^2 of several tensors, in half the passes over memory that single operations take.

    In torch's older form, with a context, which it calls in a sixth of the time of the newer one that transforms need.
    """

    @staticmethod
    def forward(ctx: Any, pulls: Sequence[Tensor | None], *tensors: Tensor) -> Tensor:
        """Return the sum () for changes, followed by their importances; `pulls` are where their products go."""
        ctx.save_for_backward(*tensors)
        changes = tensors[: len(tensors) // 2]
        ctx.products = _products(tensors, pulls)
        terms = [torch.dot(p.flatten(), d.flatten()) for p, d in zip(ctx.products, changes, strict=True)]
        return torch.stack(terms).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient by the changes; importances are constants."""
        products = _products(ctx.saved_tensors) if torch.is_grad_enabled() else ctx.products  # to derive it again
        return None, *(p * (2 * grad) for p in products), *(None for _ in products)


def _products(tensors: Sequence[Tensor], out: Sequence[Tensor | None] | None = None) -> list[Tensor]:
    """Return importance x change of several tensors: changes, followed by their importances."""
    half = len(tensors) // 2
    places = [None] * half if out is None else out
    return [torch.mul(f, d, out=o) for d, f, o in zip(tensors[:half], tensors[half:], places, strict=True)]


class Quadratic(nn.Module):
    """sum_i importance_i (theta_i - anchor_i)^2 + constant, over the parameters of a module.

    A sum of such penalties, one a task, is again one of them: importances add up, the anchor is their weighted mean,
    and the rest is a constant. So one penalty per task costs the memory of one.

    Args:
        module: the module whose parameters are held; importances begin at zero, anchors at the present values.
        heads: False leaves out the parameters of its head.
    """

    constant: Tensor

    def __init__(self, module: nn.Module, heads: bool = True) -> None:
        super().__init__()
        names = held(module, heads)
        self.importance = PerParameter(module, only=names)
        self.anchor = PerParameter(module, start="values", only=names)
        self.register_buffer("constant", torch.zeros(()))

    def penalty(self, module: nn.Module, pull: PerParameter | None = None) -> Tensor:
        """Return the penalty () at the present parameters of `module`.

        Args:
            module: as in the constructor.
            pull: where importance x change of every parameter is noted, for `take_off`.
        """
        changes = {name: parameter - self.anchor[name] for name, parameter in self.parameters_of(module)}
        if not changes:
            return self.constant
        if torch.compiler.is_compiling() or transformed():
            if pull is not None:
                for name, change in changes.items():
                    pull[name].copy_((self.importance[name] * change).detach())
            return self.constant + sum((self.importance[n] * d.square()).sum() for n, d in changes.items())
        pulls = [None if pull is None else pull[n] for n in changes]
        weighted: Tensor = _Weighted.apply(pulls, *changes.values(), *(self.importance[n] for n in changes))
        return self.constant + weighted

    def parameters_of(self, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, present value) of what is held."""
        yield from ((n, p) for n, p in module.named_parameters() if n in self.importance)

    @torch.no_grad()
    def take_off(self, pull: Tensor, name: str, gradient: Tensor, strength: float | Tensor) -> None:
        """Make of a parameter's `pull` (see `penalty`) its gradient less what strength x penalty added to that.

        A parameter that is not held has no pull, and its gradient is left as it is.
        """
        if name in self.importance:
            scale_and_add(pull, -2 * strength, gradient)
        else:
            pull.copy_(gradient)

    @torch.no_grad()
    def add(self, module: nn.Module, importance: Mapping[str, Tensor]) -> None:
        """Add a penalty with this importance (>= 0), anchored at the present parameters of `module`.

        Args:
            module: as in the constructor.
            importance: by parameter name; names left out count as zero.
        """
        for name, parameter in self.parameters_of(module):
            if name not in importance:
                continue
            old, new, anchor = self.importance[name], importance[name], self.anchor[name]
            total = old + new
            share = torch.where(total > 0, new / total, 1.0)
            change = parameter - anchor
            self.constant += (old * share * change.square()).sum()
            anchor += share * change
            old.copy_(total)

    @torch.no_grad()
    def replace(self, module: nn.Module, importance: Mapping[str, Tensor], keep: float = 1.0) -> None:
        """Become one penalty anchored at the present parameters, with importance keep * old + new.

        Args:
            module: as in the constructor.
            importance: by parameter name; names left out count as zero.
            keep: factor on the old importance.
        """
        for name, value in self.importance.items():
            value.mul_(keep)
            if name in importance:
                value.add_(importance[name])
        self.anchor.copy_from(module)
