"""A learner seen as a chain of weight layers, for methods that act on units and on the weights into and out of them."""

from torch import Tensor, nn

from cl.errors import ConfigError
from cl.learners.base import Learner

Layer = nn.Linear | nn.Conv2d


def chain(learner: Learner, who: str) -> list[Layer]:
    """Return the weight layer of every block, in order, and the head at the end.

    The units of block i are the outputs of layer i and the inputs of layer i + 1.

    Args:
        learner: its blocks have one linear or convolution layer each (mlp, cnn), its head is linear.
        who: the method that asks, for the message.

    Raises:
        ConfigError: the learner is not such a chain (residual blocks, recurrent cells).
    """
    found = [[m for m in part.modules() if isinstance(m, Layer)] for part in (*learner.blocks, learner.head)]
    widths = [layers[-1].weight.shape[0] for layers in found[:-1] if layers]
    if any(len(layers) != 1 for layers in found) or widths != list(learner.widths):
        kind = type(learner).__name__ if all(found) else f"{type(learner).__name__} without hidden layers"
    elif others := _others(learner, {id(p) for layers in found for p in layers[0]._parameters.values()}):
        kind = f"{type(learner).__name__} with {', '.join(others)} beside it"
    else:
        kind = ""
    if kind:
        raise ConfigError(f"Expected `learner` with one weight layer a block (mlp, cnn) for {who}, got {kind}")
    return [layers[0] for layers in found]


def _others(learner: Learner, known: set[int]) -> list[str]:
    """Return the names of trainable matrices besides the `known` ones: adapters, or what a weight is made from."""
    named = learner.named_parameters()
    return [name for name, p in named if p.requires_grad and p.dim() > 1 and id(p) not in known]


def as_inputs(units: Tensor, layer: Layer) -> Tensor:
    """Spread a value for each unit of a block (width,) over the inputs of the next layer: (1, in) or (1, in, 1, 1).

    A channel that is flattened feeds several inputs of a linear layer.
    """
    inputs = layer.weight.shape[1]
    spread = units.repeat_interleave(inputs // len(units))
    return spread.reshape(1, inputs, *(1 for _ in layer.weight.shape[2:]))


def as_outputs(units: Tensor, layer: Layer) -> Tensor:
    """Shape a value for each unit (width,) to multiply the weights into them: (width, 1) or (width, 1, 1, 1)."""
    return units.reshape(-1, *(1 for _ in layer.weight.shape[1:]))
