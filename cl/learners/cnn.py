"""Small convolutional network."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from cl.errors import expect
from cl.learners import layers
from cl.learners.base import Learner
from cl.learners.dropout import dropout as make_dropout

POOLINGS: dict[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class CNN(Learner):
    """Convolution blocks, then fully connected blocks.

    Every block is dropout, convolution or linear layer, normalisation, activation; what comes between two blocks
    (pooling, flattening) opens the next one, so that each block ends in its activation and gates act on channels.

    Args:
        input_shape: (channels, height, width) of one image.
        n_classes: outputs C of the head.
        channels: channels of each convolution block.
        kernel: side of the kernels, odd; the convolutions keep height and width.
        pooling: ``max``, ``average`` (2 x 2 after every convolution block) or ``stride`` (convolutions of stride 2).
        hidden: units of each fully connected layer after the convolutions; may be empty.
        global_pooling: True averages each channel over all places before the fully connected part.
        activation, norm, init: names in `cl.learners.layers`.
        init_std, init_bias: see `layers.initialise`.
        dropout: probability for the units of fully connected layers and their inputs, in [0, 1).
        channel_dropout: probability for whole channels between convolutions, in [0, 1) (Tompson et al. 2015).
        head: see `Learner`.
        head_bias: False leaves the biases of the outputs out.
        parameters: total number of parameters, to which `channels` and `hidden` are scaled; None leaves them as given.

    Raises:
        ConfigError: the samples are not images, or are too small for so many poolings.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        channels: Sequence[int] = (32, 64),
        kernel: int = 3,
        pooling: str = "max",
        hidden: Sequence[int] = (128,),
        global_pooling: bool = False,
        activation: str = "relu",
        norm: str = "none",
        init: str = "default",
        init_std: float | None = None,
        init_bias: float | None = None,
        dropout: float = 0.0,
        channel_dropout: float = 0.0,
        head: str = "auto",
        head_bias: bool = True,
        parameters: int | None = None,
    ) -> None:
        super().__init__(head)
        planes, height, width = layers.image_shape(input_shape, "cnn")
        filters = layers.sizes("learner.channels", channels)
        units = layers.sizes("learner.hidden", hidden, empty=True)
        expect(kernel > 0 and kernel % 2 == 1, "learner.kernel", "odd and > 0", kernel)
        expect(pooling in (*POOLINGS, "stride"), "learner.pooling", f"in {[*POOLINGS, 'stride']}", pooling)
        expect(
            pooling == "stride" or min(height, width) >= 2 ** len(filters),
            "learner.channels",
            f"at most {int(math.log2(min(height, width)))} long (each block halves the {height} x {width} image)",
            list(filters),
        )
        stride = 2 if pooling == "stride" else 1
        self.pooling = pooling

        def build(total: int) -> None:
            self.widths = layers.scaled((*filters, *units), total)
            shape: tuple[int, ...] = (planes, height, width)  # of what the next block reads
            between: list[nn.Module] = []  # what stands between the last block so far and the next one
            self.blocks = nn.ModuleList()
            for out in self.widths[: len(filters)]:
                convolution = nn.Conv2d(shape[0], out, kernel, stride, kernel // 2, bias=norm == "none")
                block = [*between, convolution, *layers.norm(norm, out, spatial=True), layers.activation(activation)]
                self.blocks.append(nn.Sequential(*block))
                between = [] if pooling == "stride" else [POOLINGS[pooling](2)]
                between += make_dropout(channel_dropout, channels=True, name="learner.channel_dropout")
                sides = (-(-side // 2) if pooling == "stride" else side // 2 for side in shape[1:])
                shape = (out, *sides)
            if global_pooling:
                between.append(nn.AdaptiveAvgPool2d(1))
                shape = (shape[0], 1, 1)
            between += [nn.Flatten(), *make_dropout(dropout)]
            fan_in = math.prod(shape)
            for out in self.widths[len(filters) :]:
                block = [*between, nn.Linear(fan_in, out), *layers.norm(norm, out), layers.activation(activation)]
                self.blocks.append(nn.Sequential(*block))
                fan_in, between = out, make_dropout(dropout)
            self.last = nn.Sequential(*between)
            self.head = nn.Linear(fan_in, n_classes, bias=head_bias)

        self.size(build, sum((*filters, *units)), parameters)
        layers.initialise(self, init, activation, init_std, init_bias)

    def arranged(self, x: Tensor) -> Tensor:
        """Return images with the channels of a place side by side; strided convolutions are as quick either way."""
        return x if self.pooling == "stride" else layers.channels_last(x)

    def pool(self, x: Tensor) -> Tensor:
        """Return the last block's output as features (B, D)."""
        out: Tensor = self.last(x)
        return out
