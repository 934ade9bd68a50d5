"""What a checkpoint would lose: attributes of a strategy that change in a run and are neither buffer nor parameter."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from cl.strategy import Strategy

Attributes = dict[tuple[str, str], Any]  # by module and name, something that differs where the attribute does
TORCH = ("_flat_weights", "_flat_weight_refs")  # by which torch's recurrent layers find their parameters
_MODULE = set(vars(nn.Module()))


def attributes(strategy: Strategy) -> Attributes:
    """Return what the plain attributes of a strategy are now."""
    found: Attributes = {}
    for path, module in strategy.named_modules():
        rebuilt = {name for base in type(module).__mro__ for name in vars(base).get("rebuilt", ())}
        own = {*_MODULE, "_dropouts", *TORCH, *rebuilt}
        found |= {(path, name): _print(value) for name, value in vars(module).items() if name not in own}
    return found


def lost(strategy: Strategy, before: Attributes) -> list[str]:
    """Return the attributes, with their path, that changed since `before` and would not be in a checkpoint."""
    now = attributes(strategy)
    known = {path for path, _ in before}  # modules that are new are made by `grow`, which a resumed run repeats
    changed = [key for key in now if key[0] in known and (key not in before or before[key] != now[key])]
    return [f"{path}.{name}".lstrip(".") for path, name in changed]


def _print(value: Any) -> Any:
    """Return something small that is equal for equal values of plain kinds and for the same object of others."""
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, Mapping):
        return [(str(k), _print(v)) for k, v in value.items()]
    if isinstance(value, bool | int | float | str | bytes | None):
        return repr(value)
    if isinstance(value, np.ndarray):
        return id(value), hash(value.tobytes())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_print(v) for v in value]
    return id(value)
