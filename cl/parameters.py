"""One tensor per parameter of a module, as buffers: importances, anchors, gradients of a memory, path integrals."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cl.transform import transformed


def held(learner: nn.Module, heads: bool) -> tuple[str, ...]:
    """Return the names of the parameters that a penalty holds, for `PerParameter`.

    Args:
        learner: its head is the module of that name.
        heads: False leaves the head out, with the rows of all tasks: papers may penalise shared parameters alone.
    """
    return tuple(n for n, _ in learner.named_parameters() if heads or not n.startswith("head."))


def add_product(total: Tensor, a: Tensor, b: Tensor, factor: float | Tensor = 1.0) -> None:
    """Add factor x a x b to `total` in place, in one pass over memory where there is a kernel for it.

    A stack of replicas has none, nor has a factor of each replica's own.
    """
    if transformed() or isinstance(factor, Tensor):
        total.add_(a * b * factor)
    else:
        total.addcmul_(a, b, value=factor)


def scale_and_add(total: Tensor, factor: float | Tensor, other: Tensor) -> None:
    """Multiply `total` by a factor and add `other`, in place; in one pass over memory as in `add_product`."""
    if transformed() or isinstance(factor, Tensor):
        total.mul_(factor).add_(other)
    else:
        torch.add(other, total, alpha=factor, out=total)


class PerParameter(nn.Module):
    """A set of buffers shaped like the trainable parameters of `module`.

    Args:
        module: the module whose parameters are mirrored, by name.
        start: ``zeros`` or ``values`` (a copy of the parameters).
        only: keep the names for which this prefix test holds (``None`` = all).
        dtype: of the buffers; None takes that of the parameters.

    >>> anchors = PerParameter(nn.Linear(2, 1), start="values")
    >>> sorted(name for name, _ in anchors.items())
    ['bias', 'weight']
    """

    def __init__(
        self,
        module: nn.Module,
        start: str = "zeros",
        only: tuple[str, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.names: list[str] = []
        for name, parameter in module.named_parameters():
            if only is None or name.startswith(only):
                self.names.append(name)
                value = parameter.detach().clone() if start == "values" else torch.zeros_like(parameter)
                self.register_buffer(self._key(name), value if dtype is None else value.to(dtype))

    @staticmethod
    def _key(name: str) -> str:
        return name.replace(".", "/")

    def __getitem__(self, name: str) -> Tensor:
        return self._buffers[self._key(name)]  # type: ignore[return-value]

    def __contains__(self, name: str) -> bool:
        return self._key(name) in self._buffers

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (parameter name, buffer)."""
        for name in self.names:
            yield name, self[name]

    @torch.no_grad()
    def copy_from(self, module: nn.Module) -> None:
        """Set every buffer to the present value of its parameter."""
        for name, parameter in module.named_parameters():
            if name in self:
                self[name].copy_(parameter)

    def pairs(self, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (parameter, buffer) for every mirrored parameter of `module`."""
        for name, parameter in module.named_parameters():
            if name in self:
                yield parameter, self[name]
