"""Multi-layer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from cl.errors import expect
from cl.learners import layers
from cl.learners.base import Learner
from cl.learners.dropout import Dropout


class MLP(Learner):
    """Fully connected network: linear, normalisation, activation, dropout in every block.

    Args:
        input_shape: shape of one sample; it is flattened.
        n_classes: outputs C of the head.
        hidden: units of each hidden layer, e.g. (400, 400).
        activation, norm, init: names in `cl.learners.layers`.
        dropout: probability for hidden units, in [0, 1).
        input_dropout: probability for inputs, in [0, 1) (Goodfellow et al. 2013 use .2).
        bias: False leaves the biases of the hidden layers out.
        head: see `Learner`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: Sequence[int] = (400, 400),
        activation: str = "relu",
        norm: str = "none",
        init: str = "default",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        bias: bool = True,
        head: str = "auto",
    ) -> None:
        super().__init__(head)
        expect(len(hidden) > 0 and all(h > 0 for h in hidden), "learner.hidden", "a list of sizes > 0", list(hidden))
        sizes = [math.prod(input_shape), *hidden]
        self.blocks = nn.ModuleList()
        for i, (size_in, size_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            block: list[nn.Module] = [nn.Flatten()] if i == 0 else []
            if i == 0 and input_dropout > 0:
                block.append(Dropout(input_dropout))
            block += [nn.Linear(size_in, size_out, bias=bias), *layers.norm(norm, size_out)]
            block.append(layers.activation(activation))
            if dropout > 0:
                block.append(Dropout(dropout))
            self.blocks.append(nn.Sequential(*block))
        self.head = nn.Linear(sizes[-1], n_classes)
        self.widths = tuple(hidden)
        layers.initialise(self, init, activation)

    def pool(self, x: Tensor) -> Tensor:
        """Return the last hidden layer itself: (B, D)."""
        return x
