"""torch's compiler where it is asked for, and torch.optim without it: its import takes 2 s for nothing."""

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from cl.errors import ConfigError
from cl.seeding import derive

STEP = ("training_loss", "gradients", "after_step", "remember")  # what a step of the contract calls
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


def compiled(function: Callable[..., Any], name: str, tell: Callable[[str], None]) -> Callable[..., Any]:
    """Return a function compiled as a whole by `torch.compile`; it is translated at its first call.

    What cannot be compiled is called as it is from then on.

    Args:
        function: what to compile.
        name: whose it is, for `tell`.
        tell: told in one line where nothing is compiled, and why.

    Raises:
        ConfigError: (the returned function, at its first call) this machine cannot compile.
    """
    import torch._dynamo
    from torch._dynamo import exc

    # Every task may have a structure of its own; at the usual limit of 8 the rest would not be compiled.
    torch._dynamo.config.recompile_limit = 256
    as_constant: Callable[..., Any] = torch._dynamo.assume_constant_result
    as_constant(derive)  # a function of constants that the compiler cannot look into
    program = torch.compile(function, fullgraph=True)

    def call(*args: Any) -> Any:
        nonlocal program
        try:
            return program(*args)
        except exc.BackendCompilerFailed as error:
            raise ConfigError(
                f"Expected a machine with a working compiler for `training.compile=true`, got: {_line(error)}; "
                "install a C++ compiler, or use training.compile=false"
            ) from error
        except (exc.TorchDynamoException, exc.FailOnRecompileLimitHit) as error:
            program = function
            tell(f"training.compile: {name} is not compiled: {_line(error)}")
        return function(*args)

    return call


class Programs:
    """The methods of a strategy's step, each compiled at its first call.

    Args:
        method: from the name of a method to what is called.
        name: whose methods they are, for `tell`.
        tell: told in one line where a method cannot be compiled, and why.
        kinds: the methods that are compiled.
    """

    def __init__(
        self,
        method: Callable[[str], Callable[..., Any]],
        name: str,
        tell: Callable[[str], None],
        kinds: Collection[str] = STEP,
    ) -> None:
        self.known = {kind: method(kind) for kind in STEP}
        for kind in kinds:
            whose = name if kind == "training_loss" else f"{name}.{kind}"
            self.known[kind] = compiled(self.known[kind], whose, tell)

    def __call__(self, kind: str, *args: Any) -> Any:
        """Call a method of `STEP`."""
        return self.known[kind](*args)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


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
