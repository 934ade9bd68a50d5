"""Choices that all learners share: activation, normalisation, initialisation."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cl.errors import expect
from cl.transform import transformed

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
NORMS = ("none", "batch", "layer", "group")
GAINS: dict[str, Literal["leaky_relu", "tanh", "sigmoid"]] = {
    "leaky_relu": "leaky_relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
INITS = ("default", "kaiming", "xavier", "orthogonal", "normal", "truncated_normal")
DRAWN = ("normal", "truncated_normal")  # inits with a deviation of one's own


def sizes(name: str, values: object, empty: bool = False) -> tuple[int, ...]:
    """Return a list of sizes as a tuple.

    Args:
        name: the field, as the user types it.
        values: what was given; one number counts as a list of one.
        empty: True allows an empty list.

    Raises:
        ConfigError: it is not a list of whole numbers > 0.
    """
    given = [values] if isinstance(values, int) else list(values) if isinstance(values, Sequence) else []
    found = tuple(v for v in given if isinstance(v, int) and v > 0)
    right = len(found) == len(given) and (empty or len(found) > 0)
    expect(right, name, "a list of whole numbers > 0", values)
    return found


def image_shape(shape: Sequence[int], learner: str) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image.

    Raises:
        ConfigError: the samples of the stream are not images.
    """
    expect(len(shape) == 3, "learner", f"one for samples of shape {tuple(shape)}, such as mlp or gru", learner)
    channels, height, width = shape
    return channels, height, width


def channels_last(x: Tensor) -> Tensor:
    """Return images (B, C, H, W) on a CPU with the channels of each place side by side in memory; all others as given.

    The values stay. Convolutions and poolings are 1.3 to 2.5 times as quick that way, from the first one to the last.
    Transforms of torch.func know no such layout, and the compiler chooses its own.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or transformed():
        return x
    return x.to(memory_format=torch.channels_last)


def activation(name: str) -> nn.Module:
    """Return an activation by name."""
    expect(name in ACTIVATIONS, "learner.activation", f"in {list(ACTIVATIONS)}", name)
    return ACTIVATIONS[name]()


def norm(name: str, width: int, spatial: bool = False) -> list[nn.Module]:
    """Return a normalisation layer over `width` units or channels, in a list that is empty for ``none``."""
    expect(name in NORMS, "learner.norm", f"in {list(NORMS)}", name)
    if name == "none":
        return []
    if name == "batch":
        return [nn.BatchNorm2d(width) if spatial else nn.BatchNorm1d(width)]
    if name == "group":
        return [nn.GroupNorm(math.gcd(8, width), width)]
    return [nn.GroupNorm(1, width) if spatial else nn.LayerNorm(width)]


def scaled(values: Sequence[int], total: int) -> tuple[int, ...]:
    """Return sizes of about these proportions that grow with `total`, one at a time; their sum gives them back.

    >>> [scaled((2, 4), n) for n in (6, 7, 8, 9)]
    [(2, 4), (2, 5), (2, 5), (3, 6)]
    """
    whole, n = sum(values), len(values)
    return tuple(max(1, (value * total + i * whole // n) // whole) for i, value in enumerate(values))


def initialise(
    module: nn.Module, name: str, nonlinearity: str = "relu", std: float | None = None, bias: float | None = None
) -> None:
    """Initialise the linear and convolution layers of `module` in place.

    Args:
        module: where to look for layers.
        name: of the weights: ``default`` (torch's own), ``kaiming`` (He et al. 2015, normal), ``xavier`` (Glorot and
            Bengio 2010, uniform, gain 1), ``orthogonal`` (Saxe et al. 2014), ``normal``, or ``truncated_normal``
            (TensorFlow's: a draw beyond two deviations is drawn again).
        nonlinearity: sets the gain of ``orthogonal``.
        std: deviation of ``normal`` and ``truncated_normal``, > 0; of the latter before it is cut, .88 of it after;
            None = .1, and the only value for the others.
        bias: where the biases of these layers start; None = at zero, and as torch draws them with ``default``.
    """
    expect(name in INITS, "learner.init", f"in {list(INITS)}", name)
    expect(std is None or 0 < std < math.inf, "learner.init_std", "> 0 and finite", std)
    expect(std is None or name in DRAWN, "learner.init_std", f"null unless `learner.init` is in {list(DRAWN)}", std)
    std = 0.1 if std is None else std
    expect(bias is None or math.isfinite(bias), "learner.init_bias", "a finite number or null", bias)
    gain = nn.init.calculate_gain(GAINS.get(nonlinearity, "relu"))
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv1d):
            if name == "kaiming":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif name == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            elif name == "orthogonal":
                nn.init.orthogonal_(layer.weight, gain)
            elif name == "normal":
                nn.init.normal_(layer.weight, std=std)
            elif name == "truncated_normal":
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if layer.bias is not None and (bias is not None or name != "default"):
                nn.init.constant_(layer.bias, bias or 0.0)


def hold_statistics(module: nn.Module) -> None:
    """Let batch normalisation use its running statistics, as in evaluation, and leave them as they are."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
