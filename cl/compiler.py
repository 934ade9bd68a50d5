"""torch's compiler where it is asked for, and torch.optim without it: its import takes 2 s for nothing."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from cl.errors import ConfigError

_MARK = "__dynamo_disable"  # where torch keeps the function it has marked (torch/_compile.py)


@contextlib.contextmanager
def light_optimisers() -> Iterator[None]:
    """Keep the making, saving and loading of optimisers from importing the compiler inside the block.

    Some methods of an optimiser are marked as not to be compiled, and the mark is made by the compiler at the first
    call. Nothing is compiled here, so the plain function stands in for the marked one.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = [getattr(torch.optim.Optimizer, name) for name in names]
    plain = [m.__wrapped__ for m in methods if hasattr(m, "__wrapped__")]
    light = [f for f in plain if not hasattr(f, _MARK)]
    for function in light:
        setattr(function, _MARK, function)
    try:
        yield
    finally:
        for function in light:
            delattr(function, _MARK)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function or module compiled by `torch.compile`; it is translated at its first call.

    Raises:
        ConfigError: (the returned function, at its first call) this machine cannot compile.
    """
    import torch._dynamo

    # Every task may have a structure of its own; at the usual limit of 8 the rest would silently not be compiled.
    torch._dynamo.config.recompile_limit = 256
    program = torch.compile(function)

    def call(*args: Any) -> Any:
        try:
            return program(*args)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"Expected a machine with a working compiler for `training.compile=true`, got: {reason}; "
                "install a C++ compiler, or use training.compile=false"
            ) from error

    return call


def light_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """Return what `optimizer.step` does, without the wrappers that import the compiler and name a profile.

    Only for torch's own optimisers, whose wrappers are known; where somebody hooks into the step (a learning-rate
    scheduler does), the step stays as it is.
    """
    kind = type(optimizer)
    hooked = "step" in vars(optimizer) or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if hooked or not kind.__module__.startswith("torch.optim.") or optimizer.defaults.get("differentiable"):
        return optimizer.step
    step = inspect.unwrap(kind.step)

    def bare() -> None:
        with torch.no_grad():
            step(optimizer)

    return bare
