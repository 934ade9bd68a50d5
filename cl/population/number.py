"""A number of a strategy (a strength, a temperature) that differs between the replicas of a stack."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


class Number:
    """Stands for a float attribute inside `vmap`: one value a replica.

    In arithmetic, alone or with tensors, it is a tensor (). Compared with a number it gives a bool where all replicas
    agree (``if self.strength > 0``); where they do not, it raises, and the replicas are run apart.

    Args:
        value: () tensor, batched by `vmap`.
        values: the values of all replicas.
    """

    def __init__(self, value: Tensor, values: Sequence[float]) -> None:
        self.value, self.values = value, values

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take part in any function of torch as a tensor."""
        plain_args, plain_kwargs = tree_map(_tensor, (args, kwargs or {}))
        return func(*plain_args, **plain_kwargs)

    def _decide(self, compare: Callable[[float, Any], bool], other: Any) -> bool:
        others = other.values if isinstance(other, Number) else [other] * len(self.values)
        found = {compare(a, b) for a, b in zip(self.values, others, strict=True)}
        if len(found) > 1:
            raise TypeError("a number that differs between replicas decides what is computed")
        return found.pop()

    def __eq__(self, other: object) -> bool:
        return self._decide(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._decide(operator.ne, other)

    def __lt__(self, other: Any) -> bool:
        return self._decide(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._decide(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._decide(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._decide(operator.ge, other)

    def __bool__(self) -> bool:
        return self._decide(operator.ne, 0)

    def __hash__(self) -> int:
        return id(self)

    def __float__(self) -> float:
        raise TypeError("a number that differs between replicas is used outside of tensors")

    def __neg__(self) -> Tensor:
        return -self.value

    def __add__(self, other: Any) -> Any:
        return self.value + _tensor(other)

    def __sub__(self, other: Any) -> Any:
        return self.value - _tensor(other)

    def __mul__(self, other: Any) -> Any:
        return self.value * _tensor(other)

    def __truediv__(self, other: Any) -> Any:
        return self.value / _tensor(other)

    def __pow__(self, other: Any) -> Any:
        return self.value ** _tensor(other)

    def __radd__(self, other: Any) -> Any:
        return other + self.value

    def __rsub__(self, other: Any) -> Any:
        return other - self.value

    def __rmul__(self, other: Any) -> Any:
        return other * self.value

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.value

    def __rpow__(self, other: Any) -> Any:
        return torch.pow(other, self.value)


def _tensor(value: Any) -> Any:
    return value.value if isinstance(value, Number) else value
