"""Multi-layer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from cl.errors import expect
from cl.learners import layers
from cl.learners.base import Learner
from cl.learners.dropout import dropout as make_dropout


class MLP(Learner):
    """Fully connected network: dropout, linear, normalisation, activation in every block.

    Args:
        input_shape: shape of one sample; it is flattened.
        n_classes: outputs C of the head.
        hidden: units of each hidden layer, e.g. (400, 400); () for a linear model.
        activation, norm, init: names in `cl.learners.layers`.
        init_std, init_bias: see `layers.initialise`.
        dropout: probability for hidden units, in [0, 1).
        input_dropout: probability for inputs, in [0, 1) (Goodfellow et al. 2013 use .2).
        bias: False leaves the biases of the hidden layers out.
        head: see `Learner`.
        head_bias: False leaves the biases of the outputs out.
        parameters: total number of parameters, to which `hidden` is scaled; None leaves it as given.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: Sequence[int] = (400, 400),
        activation: str = "relu",
        norm: str = "none",
        init: str = "default",
        init_std: float | None = None,
        init_bias: float | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        bias: bool = True,
        head: str = "auto",
        head_bias: bool = True,
        parameters: int | None = None,
    ) -> None:
        super().__init__(head)
        given = layers.sizes("learner.hidden", hidden, empty=True)
        expect(bool(given) or parameters is None, "learner.parameters", "null without hidden layers", parameters)
        inputs = make_dropout(input_dropout, name="learner.input_dropout")

        def build(total: int) -> None:
            self.widths = layers.scaled(given, total)
            fan_in = math.prod(input_shape)
            self.blocks = nn.ModuleList()
            if not given:  # a linear model: its only block hands the inputs on
                self.widths, self.last = (fan_in,), nn.Sequential()
                self.blocks.append(nn.Sequential(nn.Flatten(), *inputs))
                self.head = nn.Linear(fan_in, n_classes, bias=head_bias)
                return
            for i, width in enumerate(self.widths):
                block: list[nn.Module] = [nn.Flatten(), *inputs] if i == 0 else make_dropout(dropout)
                block += [nn.Linear(fan_in, width, bias=bias), *layers.norm(norm, width), layers.activation(activation)]
                self.blocks.append(nn.Sequential(*block))
                fan_in = width
            self.last = nn.Sequential(*make_dropout(dropout))
            self.head = nn.Linear(fan_in, n_classes, bias=head_bias)

        self.size(build, sum(given), parameters)
        layers.initialise(self, init, activation, init_std, init_bias)

    def pool(self, x: Tensor) -> Tensor:
        """Return the last hidden layer: (B, D)."""
        out: Tensor = self.last(x)
        return out
