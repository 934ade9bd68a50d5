"""What a checkpoint would lose: attributes of a strategy that change in a run and are neither buffer nor parameter.

And what a resumed run could not take back: modules, parameters and buffers that are made elsewhere than in `grow`.
"""

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl.strategy import Strategy

Attributes = dict[tuple[str, str], Any]  # by module and name, something that differs where the attribute does
TORCH = ("_flat_weights", "_flat_weight_refs")  # by which torch's recurrent layers find their parameters
_KNOWN = ("builtins", "torch", "numpy", "cl", "strategies", "functools", "collections")  # whose objects are not opened
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


def parts(strategy: Strategy) -> set[str]:
    """Return the names of a strategy's modules, parameters and buffers, also of those that are None."""
    named = strategy.named_modules()
    return {f"{p}.{name}".lstrip(".") for p, m in named for name in (*m._modules, *m._parameters, *m._buffers)}


def made_late(strategy: Strategy, before: set[str]) -> list[str]:
    """Return the parts that are new since `before`, without those inside of new modules."""
    new = parts(strategy) - before
    return sorted(name for name in new if not any(name.startswith(f"{other}.") for other in new))


def _print(value: Any, deep: int = 4) -> Any:
    """Return something small that is equal for equal values of plain kinds and for the same object of others.

    Objects of a user's own are looked into, `deep` levels down.
    """
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, Mapping):
        return [(str(k), _print(v, deep)) for k, v in value.items()]
    if isinstance(value, bool | int | float | str | bytes | None):
        return repr(value)
    if isinstance(value, np.ndarray):
        return id(value), hash(value.tobytes())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_print(v, deep) for v in value]
    if isinstance(value, torch.Generator):
        return id(value), hash(value.get_state().numpy().tobytes())
    if isinstance(value, np.random.Generator):
        return id(value), repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return id(value), hash(value.getstate())
    if isinstance(value, torch.optim.Optimizer):
        return id(value), _print(value.state_dict(), deep)
    theirs = type(value).__module__.partition(".")[0] not in _KNOWN
    if theirs and deep > 0 and not isinstance(value, nn.Module | type) and not callable(value):
        return id(value), _print(getattr(value, "__dict__", {}), deep - 1)
    return id(value)
