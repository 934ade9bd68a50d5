"""Residual network of 18 layers (He, Zhang, Ren, Sun 2016, Deep residual learning for image recognition, table 1)."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from cl.errors import expect
from cl.learners import layers
from cl.learners.base import Learner

STEMS = ("cifar", "imagenet")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; ends in its activation.

    Args:
        planes: channels in.
        inner: channels between the two convolutions.
        width: channels out.
        stride: of the first convolution and the shortcut.
        norm, activation: names in `cl.learners.layers`.
        zero: True starts the residual branch at zero.
    """

    def __init__(
        self, planes: int, inner: int, width: int, stride: int, norm: str, activation: str, zero: bool
    ) -> None:
        super().__init__()
        bias = norm == "none"
        self.residual = nn.Sequential(
            nn.Conv2d(planes, inner, 3, stride, 1, bias=bias),
            *layers.norm(norm, inner, spatial=True),
            layers.activation(activation),
            nn.Conv2d(inner, width, 3, 1, 1, bias=bias),
            *layers.norm(norm, width, spatial=True),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or planes != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(planes, width, 1, stride, bias=bias), *layers.norm(norm, width, spatial=True)
            )
        self.activation = layers.activation(activation)
        self.zero = zero

    def close(self) -> None:
        """Set the residual branch to zero, if asked, so that the block starts as its shortcut (Goyal et al. 2017)."""
        if self.zero:
            for parameter in self.residual[-1].parameters():  # of its last norm, or last convolution
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H', W')."""
        out: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return out


class ResNet18(Learner):
    """ResNet-18: a stem, four stages of two basic blocks, average over places.

    Width 20 with the CIFAR stem is the slim network of GEM (Lopez-Paz and Ranzato 2017); width 64 with the ImageNet
    stem is the network of the paper. Batch normalisation keeps running statistics of the tasks seen last; in a
    population every replica has its own. ``group`` has no such state, which makes it the cleaner choice for the study
    of forgetting.

    Args:
        input_shape: (channels, height, width) of one image.
        n_classes: outputs C of the head.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        stem: ``cifar`` (3 x 3, stride 1) or ``imagenet`` (7 x 7, stride 2, then max pooling).
        norm: ``batch``, ``group``, ``layer`` or ``none``.
        activation, init: names in `cl.learners.layers`.
        init_std, init_bias: see `layers.initialise`.
        zero_init_residual: True starts every block as its shortcut; without a norm it keeps the depth trainable.
        head: see `Learner`.
        head_bias: False leaves the biases of the outputs out.
        parameters: total number of parameters, which sets the width; what is left of it widens blocks between their two
            convolutions, the last ones first. None leaves the sizes as given.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        width: int = 20,
        stem: str = "cifar",
        norm: str = "batch",
        activation: str = "relu",
        init: str = "kaiming",
        init_std: float | None = None,
        init_bias: float | None = None,
        zero_init_residual: bool = False,
        head: str = "auto",
        head_bias: bool = True,
        parameters: int | None = None,
    ) -> None:
        super().__init__(head)
        planes = layers.image_shape(input_shape, "resnet18")[0]
        expect(width > 0, "learner.width", "> 0", width)
        expect(stem in STEMS, "learner.stem", f"in {list(STEMS)}", stem)
        large = stem == "imagenet"
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)

        def build(width: int, more: int) -> None:
            first = nn.Conv2d(planes, width, kernel, stride, padding, bias=norm == "none")
            opening = [first, *layers.norm(norm, width, spatial=True), layers.activation(activation)]
            self.blocks = nn.ModuleList([nn.Sequential(*opening)])
            self.widths = (width, *(width * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)))
            for i, (size_in, size_out) in enumerate(itertools.pairwise(self.widths)):
                inner, down = size_out + (more + i) // 8, 2 if size_out > size_in else 1
                block: nn.Module = BasicBlock(size_in, inner, size_out, down, norm, activation, zero_init_residual)
                self.blocks.append(nn.Sequential(nn.MaxPool2d(3, 2, 1), block) if large and i == 0 else block)
            self.head = nn.Linear(self.widths[-1], n_classes, bias=head_bias)

        if parameters is not None:
            width = self.largest(lambda n: build(n, 0), parameters)
        self.size(lambda n: build(width, n - 1), 1, parameters)
        layers.initialise(self, init, activation, init_std, init_bias)
        for module in self.modules():
            if isinstance(module, BasicBlock):
                module.close()

    def arranged(self, x: Tensor) -> Tensor:
        """Return images with the channels of a place side by side."""
        return layers.channels_last(x)

    def pool(self, x: Tensor) -> Tensor:
        """Return the mean over places: (B, D)."""
        return x.mean((2, 3))
