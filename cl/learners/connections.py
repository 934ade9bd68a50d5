"""Which parameters of a learner weigh connections, for methods that cut connections or share them out to tasks."""

from collections.abc import Iterable

from torch import nn

from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.learners.ssm import S4D

# Layers, and how the names of their connections' weights begin. Not among them: biases, gains of a normalisation, the
# time constants of a state-space layer, codes of positions.
WEIGHTS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding), "weight"),
    ((nn.RNNBase,), "weight_"),
    ((S4D,), "c"),
)


def connections(learner: Learner, who: str, head: bool = False) -> tuple[str, ...]:
    """Return the names of the parameters that weigh connections, one each: 0 is no connection.

    Those of linear, convolution and recurrent layers and of embeddings (a layer over one-hot tokens); of a state-space
    layer those from its states to its outputs.

    Args:
        learner: where to look.
        who: the method that asks, for the message.
        head: True counts the head in.

    Raises:
        ConfigError: there are none.
    """
    below = learner.modules() if head else _without(learner, learner.head)
    weights = {
        id(p)
        for module in below
        for kinds, start in WEIGHTS
        if isinstance(module, kinds)
        for name, p in module.named_parameters(recurse=False)
        if name.startswith(start)
    }
    names = tuple(name for name, p in learner.named_parameters() if id(p) in weights)
    if not names:
        raise ConfigError(f"Expected `learner` with weights of connections for {who}, got {type(learner).__name__}")
    return names


def _without(module: nn.Module, part: nn.Module) -> Iterable[nn.Module]:
    inside = set(part.modules())
    return (m for m in module.modules() if m not in inside)
