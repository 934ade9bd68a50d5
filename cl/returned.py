"""What the hooks of a strategy return, checked where they are called: a class of the user's own errs in one line."""

from typing import Any

from torch import Tensor

from cl.errors import ConfigError
from cl.streams.data import TrainingData


def returned(strategy: object, hook: str, rule: str, value: Any) -> ConfigError:
    """Return the error of a hook that returned something else than the contract's.

    Args:
        strategy: whose.
        hook: name of the method.
        rule: what it is to return.
        value: what it returned.
    """
    return ConfigError(f"Expected {type(strategy).__name__}.{hook} to return {rule}, got {_described(value)}")


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def scalar(strategy: object, hook: str, value: Any) -> Tensor:
    """Return a hook's value if it is a tensor of shape ().

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, Tensor) or value.dim() > 0:
        raise returned(strategy, hook, "a tensor of shape ()", value)
    return value


def with_gradient(strategy: object, loss: Tensor) -> Tensor:
    """Return a loss that has a gradient.

    Raises:
        ConfigError: it was detached, or depends on no trainable parameter.
    """
    if not loss.requires_grad:
        rule = "a loss that depends on the trainable parameters"
        raise ConfigError(f"Expected {type(strategy).__name__}.loss to return {rule}, got one without a gradient")
    return loss


def scores_of(strategy: object, value: Any, samples: int, outputs: int) -> Tensor:
    """Return what `predict` gave if it is (samples, outputs) or (samples, T, outputs).

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, Tensor) or value.dim() < 2 or (value.shape[0], value.shape[-1]) != (samples, outputs):
        raise returned(strategy, "predict", f"a tensor of {samples} rows of {outputs} outputs", value)
    return value


def data_of(strategy: object, value: Any) -> TrainingData:
    """Return what `training_data` gave if it is training data.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, TrainingData):
        raise returned(strategy, "training_data", "a cl.streams.data.TrainingData", value)
    return value


def edited(strategy: object, grads: dict[str, Tensor], value: Any) -> dict[str, Tensor]:
    """Return what `gradients` gave if it is a tensor of the parameter's shape for every name in `grads`.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, dict):
        raise returned(strategy, "gradients", "a dict from parameter names to tensors", value)
    for name, grad in grads.items():
        found = value.get(name)
        if not isinstance(found, Tensor) or found.shape != grad.shape:
            rule = f"a tensor of shape {tuple(grad.shape)} for {name!r}"
            raise returned(strategy, "gradients", rule, found)
    return value
