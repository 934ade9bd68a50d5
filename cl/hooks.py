"""The hooks of a strategy, looked at before it is built: a mistake in a class of the user's own becomes one line."""

import difflib
import inspect
from functools import cache

from cl.build import warn_once
from cl.errors import ConfigError
from cl.own import ours
from cl.strategy import Strategy

ALIKE = 0.85  # likeness of two names, see `difflib`: end_tasks and end_task have .94, losses and loss .8


@cache
def hooks() -> dict[str, int]:
    """Return the methods of the contract and how many arguments each is called with."""
    own = {n: f for n, f in vars(Strategy).items() if inspect.isfunction(f) and not n.startswith("_")}
    return {n: len(inspect.signature(f).parameters) - 1 for n, f in own.items() if n != "forward"}


def check_hooks(kind: type[Strategy]) -> None:
    """Check that a class's methods can be called as the contract calls them; warn of names close to a hook's.

    Raises:
        ConfigError: a method takes other arguments.
    """
    for name, count in hooks().items():
        method = inspect.getattr_static(kind, name)
        if not inspect.isfunction(method):
            raise ConfigError(f"Expected {kind.__name__}.{name} to be a method, got {method!r}")
        try:
            inspect.signature(method).bind(*range(count + 1))
        except TypeError as error:
            asked = ", ".join(inspect.signature(getattr(Strategy, name)).parameters)
            raise ConfigError(
                f"Expected {kind.__name__}.{name} to take ({asked}), got {name}{inspect.signature(method)}"
            ) from error
    own = [base for base in kind.__mro__ if issubclass(base, Strategy) and not ours(base)]
    for name in sorted({n for base in own for n, f in vars(base).items() if inspect.isfunction(f)} - set(hooks())):
        near = difflib.get_close_matches(name, hooks(), 1, ALIKE)
        if near and getattr(kind, near[0]) is getattr(Strategy, near[0]):
            warn_once(f"{kind.__name__}.{name} is no hook of a strategy (did you mean {near[0]}?)")
