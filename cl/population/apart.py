"""Attributes in which replicas differ and that no stack can hold: it hides them, so that nobody computes with them."""

import dataclasses
import enum
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from cl.strategy import Strategy

Place = tuple[str, ...]  # path of the module, name of its attribute, and of the field where that is a dataclass
Known = Mapping[int, str]  # names of modules, parameters and buffers by their `id`
PLAIN = (bool, int, str, bytes, complex, types.NoneType)
NAMES = (type, types.ModuleType, types.BuiltinFunctionType, torch.dtype, torch.device, torch.layout, enum.Enum)
REGISTRIES = {name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set)}
COMPUTED_WITH = {"_parameters", "_buffers", "_modules"}  # those of the registries that matter
ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
USES = (
    *("getattribute", "bool", "iter", "len", "getitem", "contains", "call", "hash", "float", "int", "index"),
    *("repr", "str", "format"),
    *("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", *ARITHMETIC, *(f"r{n}" for n in ARITHMETIC)),
)


class DiffersError(RuntimeError):
    """A hot-path method uses an attribute in which the replicas of a stack differ."""


def hidden(name: str) -> Any:
    """Return what stands for an attribute that differs between replicas: whatever uses it raises `DiffersError`."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise DiffersError(f"`{name}` differs between replicas and is no plain number")

    return type("Hidden", (), {f"__{use}__": refuse for use in USES})()


def differing(a: Strategy, b: Strategy) -> list[Place]:
    """Return the attributes of two strategies of equal `structure` whose values differ or cannot be compared.

    Left out are numbers, which a stack can hold, parameters and buffers, and what `structure` compares.
    """
    modules = zip(a.named_modules(), b.named_modules(), strict=True)
    known = _known(a), _known(b)
    found: list[Place] = []
    for (path, one), (_, other) in modules:
        fields, others = _fields(one), _fields(other)
        for place in dict.fromkeys((*fields, *others)):
            if place not in fields or place not in others or not same(fields[place], others[place], *known):
                found.append((path, *place))
    return found


def hide(strategy: Strategy, places: Sequence[Place]) -> None:
    """Hide some attributes of a strategy."""
    for path, name, *field in places:
        attributes = vars(strategy.get_submodule(path))
        (vars(attributes[name]) if field else attributes)[(name, *field)[-1]] = hidden(".".join((name, *field)))


def alike(strategies: Sequence[Strategy], leave: Callable[[Place], bool]) -> list[list[int]]:
    """Return the positions of strategies that differ in no attribute, those left out that `leave` says."""
    found: list[list[int]] = []
    for i, strategy in enumerate(strategies):
        equal = (g for g in found if all(leave(place) for place in differing(strategies[g[0]], strategy)))
        group = next(equal, None)
        if group is None:
            found.append([i])
        else:
            group.append(i)
    return found


def _known(strategy: Strategy) -> dict[int, str]:
    named = (*strategy.named_modules(), *strategy.named_parameters(), *strategy.named_buffers())
    return {id(thing): name for name, thing in named}


def _fields(module: nn.Module) -> dict[Place, Any]:
    """Return the attributes of a module that nobody else compares; those of dataclasses field by field."""
    found: dict[Place, Any] = {}
    for name, value in vars(module).items():
        if name in REGISTRIES or isinstance(value, float):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
            found |= {(name, field): inner for field, inner in vars(value).items()}
        else:
            found[(name,)] = value
    return found


def same(a: Any, b: Any, known: Known, others: Known, around: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Return True if two values are equal for certain: by value, containers and plain objects part by part.

    Args:
        a: an attribute of one strategy, or a part of it.
        b: the same of another.
        known: what the first strategy registers; equal if the name is, as tensors are stacked by name.
        others: what the second does.
        around: pairs that these are parts of, for objects that hold themselves.
    """
    if a is b or (id(a), id(b)) in around:
        return True
    if type(a) is not type(b):
        return False
    if id(a) in known or id(b) in others:
        return known.get(id(a)) == others.get(id(b))
    if isinstance(a, (*PLAIN, *NAMES)):
        return bool(a == b)
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, Tensor):
        facts = [(t.shape, t.dtype, t.device, t.requires_grad, t.layout) for t in (a, b)]
        return facts[0] == facts[1] and torch.equal(a, b)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.dtype != object and np.array_equal(a, b)
    if isinstance(a, torch.Generator):
        return a.device == b.device and torch.equal(a.get_state(), b.get_state())
    if isinstance(a, set | frozenset):
        return bool(a == b)
    parts, more = _parts(a), _parts(b)
    if parts is None or more is None or len(parts) != len(more):
        return False
    inner = partial(same, known=known, others=others, around=around | {(id(a), id(b))})
    return all(inner(x, y) for x, y in zip(parts, more, strict=True))


def _parts(of: Any) -> list[Any] | None:
    """Return the parts that make an object what it is, or None where nobody can tell."""
    if isinstance(of, Mapping):
        return [part for item in of.items() for part in item]
    if isinstance(of, Sequence):
        return list(of)
    if isinstance(of, partial):
        return [of.func, of.args, of.keywords]
    if isinstance(of, types.MethodType):
        return [of.__func__, of.__self__]
    if isinstance(of, types.CodeType):
        return [of.co_code, of.co_consts, of.co_names, of.co_varnames, of.co_freevars]
    if isinstance(of, types.FunctionType):
        return [of.__code__, of.__module__, of.__defaults__, of.__kwdefaults__, *_around(of)]
    if isinstance(of, nn.Module):  # one that is not registered, or it were known
        return [x for n, v in vars(of).items() if n not in REGISTRIES or n in COMPUTED_WITH for x in (n, v)]
    if hasattr(of, "__dict__") and not any(vars(kind).get("__slots__") for kind in type(of).__mro__):
        return [part for item in vars(of).items() for part in item]
    return None


def _around(function: types.FunctionType) -> list[Any]:
    """Return what a function takes from the functions around it; a name without a value equals no other."""
    found: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(object().__repr__)
    return found
