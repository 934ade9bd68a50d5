"""From a plain configuration to objects: every `_target_` is imported, checked field by field, and called.

Errors carry the path that the user typed (``strategy.strength``), which is why this is not left to
`hydra.utils.instantiate`. A `_target_` may name any importable code: configurations are trusted (SECURITY.md).
"""

import contextlib
import functools
import inspect
import logging
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cl.errors import ConfigError, LetheError, nearest, out_of_memory
from cl.files import UNWRITABLE

log = logging.getLogger(__name__)
Config = dict[str, Any]
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def construct(node: Any, path: str, /, **given: Any) -> Any:
    """Build what a configuration node describes.

    Args:
        node: plain value, list or mapping; a mapping with `_target_` is called with its other keys, built first.
            `_partial_: true` gives a function that takes the rest.
        path: where the node stands in the configuration, for errors.
        given: further keyword arguments, from the program.

    Raises:
        ConfigError: the target cannot be imported, or a field is unknown, missing or of the wrong type.
    """
    if isinstance(node, Mapping) and node.get("_target_"):
        target = locate(node["_target_"], f"{path}._target_")
        fields = {k: construct(v, f"{path}.{k}") for k, v in node.items() if k not in ("_target_", "_partial_")}
        check_fields(target, fields, path, tuple(given), partial=bool(node.get("_partial_")))
        tell_unused(target, fields | given, path)
        if node.get("_partial_"):
            return functools.partial(target, **fields, **given)
        return call(target, path, **fields, **given)
    if isinstance(node, Mapping):
        return {k: construct(v, f"{path}.{k}") for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [construct(v, f"{path}[{i}]") for i, v in enumerate(node)]
    return node


def as_hinted(node: Any, target: Any = None) -> Any:
    """Return a configuration node with floats where its targets ask for floats: ``1`` and ``1.0`` are one setting.

    A target that cannot be imported is left to `construct`, which says so.

    Args:
        node: see `construct`.
        target: what the fields of a mapping without `_target_` are given to, or None.
    """
    if isinstance(node, list):
        return [as_hinted(v) for v in node]
    if not isinstance(node, Mapping):
        return node
    with contextlib.suppress(Exception):  # whatever a user's module raises when it is imported
        target = locate(node["_target_"], "_target_") if node.get("_target_") else target
    hints = {} if target is None else _hints(target)
    return {k: _as_float(as_hinted(v), hints.get(k)) for k, v in node.items()}


def _as_float(value: Any, hint: Any) -> Any:
    """Return a value with every whole number a float that the hint says is one."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        fitting = (a for a in arguments if _fits(value, a))
        return value if int in arguments else _as_float(value, next(fitting, None))
    if hint is float and _fits(value, int):
        return float(value)
    if isinstance(value, list) and origin in (list, tuple, Sequence):
        each = arguments if len(arguments) == len(value) and ... not in arguments else arguments[:1] * len(value)
        return [_as_float(v, h) for v, h in zip(value, each, strict=False)]
    return value


def call(target: Callable[..., Any], path: str, /, **fields: Any) -> Any:
    """Call a target; what goes wrong inside somebody's constructor becomes one line that names the place."""
    try:
        return target(**fields)
    except (LetheError, MemoryError):
        raise
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        OSError,
        AssertionError,
        AttributeError,
        RuntimeError,
    ) as error:
        if out_of_memory(error) or getattr(error, "errno", None) in UNWRITABLE:  # told by whoever knows the run
            raise
        inner = target.func if isinstance(target, functools.partial) else target
        name = getattr(inner, "__qualname__", str(inner))
        raise ConfigError(f"Expected `{path}` to be built by {name}, got {type(error).__name__}: {error}") from error


def locate(target: Any, path: str) -> Callable[..., Any]:
    """Import the class or function that a dotted name stands for.

    Raises:
        ConfigError: it does not exist, or is not callable.
    """
    if not isinstance(target, str):
        raise ConfigError(f"Expected `{path}` a dotted name such as my_package.MyClass, got {target!r}")
    try:
        found = pkgutil.resolve_name(target)
    except (Exception, SystemExit) as error:  # whatever a user's module raises when it is imported
        if out_of_memory(error):
            raise
        near = _near_attribute(target) if isinstance(error, ImportError | AttributeError | ValueError) else ""
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        raise ConfigError(f"Expected `{path}` an importable name, got {target!r} ({kind}{error}){near}") from error
    if not callable(found):
        raise ConfigError(f"Expected `{path}` a class or function, got {target!r}, which is {type(found).__name__}")
    return typing.cast(Callable[..., Any], found)


def _near_attribute(target: str) -> str:
    module, _, name = target.rpartition(".")
    try:
        names = dir(pkgutil.resolve_name(module))
    except (ImportError, AttributeError, ValueError):
        return ""
    return nearest(name, names)


def check_fields(
    target: Callable[..., Any], fields: Config, path: str, given: Sequence[str] = (), partial: bool = False
) -> None:
    """Check the names and types of a target's fields before it is called.

    Args:
        target: class or function.
        fields: what the configuration says.
        path: where, for errors.
        given: names that the program passes itself.
        partial: True if more arguments will come later, so that missing ones are no mistake.

    Raises:
        ConfigError: names the field, the rule and the value.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # built without a Python signature
        return
    name = getattr(target, "__qualname__", str(target))
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for field in [*given, *fields]:
        if field not in parameters and not anything:
            if field in given:
                signature = f"{name}({', '.join(parameters)})"
                raise ConfigError(
                    f"Expected {name} to take the argument `{field}` (README, your own strategy), got {signature}"
                )
            own = [p for p in parameters if p not in given]
            raise ConfigError(
                f"Expected `{path}.{field}` to be one of {own} for {name}, got {fields[field]!r}{nearest(field, own)}"
            )
    hints = _hints(target)
    for field, value in fields.items():
        if field in hints:
            check_type(value, hints[field], f"{path}.{field}")
    if not partial:
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for field, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind in plain
            if required and field not in fields and field not in given:
                raise ConfigError(f"Expected `{path}.{field}` to be given, which {name} needs; got nothing")


Conditions = Mapping[str, Mapping[str, Sequence[Any] | str]]
_RULES: dict[str, Callable[[Any], bool]] = {
    "> 0": lambda v: v > 0,
    "> 1": lambda v: v > 1,
    "given": lambda v: v is not None,
    "not 0": lambda v: v != 0,
}


def unused(target: Callable[..., Any], fields: Mapping[str, Any], path: str) -> list[str]:
    """Return a line for each field that was changed and has no effect beside the others.

    A class says so itself: in ``only_with`` (`Conditions`) each field that is not always used has the fields on which
    that depends, each with the values it needs, or one of ``> 0``, ``> 1``, ``not 0`` and ``given``.

    Args:
        target: class or function.
        fields: what it is called with.
        path: where it stands in the configuration.
    """
    conditions: Conditions = getattr(target, "only_with", {})
    defaults = {n: p.default for n, p in inspect.signature(target).parameters.items()} if conditions else {}
    found = []
    for field, needs in conditions.items():
        if field not in defaults or fields.get(field, defaults[field]) == defaults[field]:
            continue
        for other, rule in ((o, r) for o, r in needs.items() if o in defaults):
            value = fields.get(other, defaults[other])
            if not (_RULES[rule](value) if isinstance(rule, str) else value in rule):
                asked = rule if isinstance(rule, str) else " or ".join("null" if v is None else str(v) for v in rule)
                found.append(f"{path}.{field} has no effect with {path}.{other}={value}: it needs {asked}")
                break
    return found


def tell_unused(target: Callable[..., Any], fields: Mapping[str, Any], path: str) -> None:
    """Warn of fields that have no effect; see `unused`."""
    for line in unused(target, fields, path):
        warn_once(line)


@functools.cache
def warn_once(line: str) -> None:
    """Warn of something, and never of the same again, however many replicas there are."""
    log.warning(line)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # names that exist only for type checkers
        return {k: v for k, v in getattr(function, "__annotations__", {}).items() if not isinstance(v, str)}


def check_type(value: Any, hint: Any, path: str) -> None:
    """Check a plain value against a type hint; hints that speak of objects are left to the constructor.

    Raises:
        ConfigError: ``Expected `path` a number, got 'x'``.
    """
    if not _fits(value, hint):
        raise ConfigError(f"Expected `{path}` {_describe(hint)}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, a) for a in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and arguments and arguments[1:] != (...,):
            return len(value) == len(arguments) and all(map(_fits, value, arguments))
        return all(_fits(v, arguments[0] if arguments else Any) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return not isinstance(value, str | bool | int | float) or hint in (Any, object) or not inspect.isclass(hint)


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(a) for a in arguments))
    if origin is Literal:
        return f"in {list(arguments)}"
    if hint is None or hint is type(None):
        return "null"
    if origin in (list, tuple, Sequence):
        if origin is tuple and arguments and arguments[-1] is not ...:
            return f"a list of {len(arguments)}, each {' or '.join(dict.fromkeys(map(_describe, arguments)))}"
        return f"a list, each {_describe(arguments[0])}" if arguments else "a list"
    if origin in (dict, Mapping):
        return "a mapping"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
