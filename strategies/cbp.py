"""Continual backpropagation: keep replacing the least useful units by new ones, so that the network stays plastic."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.learners.chain import as_inputs, chain
from cl.seeding import uniforms
from cl.strategy import Aux, Moments, Paper, Strategy
from cl.streams.base import StreamInfo

UTILITIES = ("contribution", "adaptable_contribution")


class CBP(Strategy):
    """Selectively reinitialise units (channels) by a running utility, a small share of the mature ones at every step.

    utility <- decay * utility + (1 - decay) * mean|h| * sum|w_out|. Once a unit is older than `maturity` steps it may
    be replaced: new weights in, zero weights out, and the next layer's bias takes over its mean output.

    Args:
        learner: blocks of one weight layer (mlp, cnn).
        info: see `Strategy`.
        rate: share of a layer's mature units replaced a step, in [0, 1]; 1e-4 in the paper (1e-6 to 1e-3 studied).
        maturity: steps before a new unit may be replaced; 100 in the paper.
        decay: of the running averages, in [0, 1); .99 in the paper.
        utility: ``contribution`` (paper), or ``adaptable_contribution``: |h - mean h| in place of |h|, divided by
            sum|w_in| (arXiv 2108.06325, and the authors' runs on permuted MNIST: units of small weights adapt faster).

    What the optimiser remembers of the weights into and out of a replaced unit is set to zero, as the paper does for
    Adam.

    Normalisation is not part of the paper's networks: its gains, shifts and statistics stay those of the unit that was
    replaced, and where it leaves convolutions without biases nothing takes over a mean output. Outputs are averaged
    before pooling (the authors' code: after it, and convolutions hand over nothing).

    Differs from the paper: Adam's counter of steps, which torch keeps for a whole parameter, is not set back, so that
    Adam's first steps of a new unit are up to 6.5 times as long as the paper's.
    """

    paper = Paper("Loss of plasticity in deep continual learning", 2024, "https://doi.org/10.1038/s41586-024-07711-7")
    neutral: ClassVar[Mapping[str, Any] | None] = {"rate": 0.0}
    bare: ClassVar[bool] = True

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        rate: float = 1e-4,
        maturity: int = 100,
        decay: float = 0.99,
        utility: str = "contribution",
    ) -> None:
        super().__init__(learner, info)
        expect(0 <= rate <= 1, "strategy.rate", "in [0, 1]", rate)
        expect(maturity >= 0, "strategy.maturity", ">= 0", maturity)
        expect(0 <= decay < 1, "strategy.decay", "in [0, 1)", decay)
        expect(utility in UTILITIES, "strategy.utility", f"in {list(UTILITIES)}", utility)
        self.rate, self.maturity, self.decay, self.utility = rate, maturity, decay, utility
        self.most = tuple(max(1, math.ceil(rate * width)) for width in learner.widths)  # that can be due at one step
        self.layers = chain(learner, "cbp")
        names = {id(module): f"{name}." for name, module in self.named_modules()}
        self.names = tuple(names[id(layer)] for layer in self.layers)
        for i, width in enumerate(learner.widths):
            for name in ("utility", "output", "age"):
                self.register_buffer(f"{name}_{i}", torch.zeros(width))
            self.register_buffer(f"new_{i}", torch.zeros(width))  # 1 for the units replaced by the last step
            self.register_buffer(f"due_{i}", torch.zeros(()))  # units to replace, a fraction until it reaches one
            # New weights are uniform with the spread of the initial ones.
            self.register_buffer(f"bound_{i}", math.sqrt(3) * self.layers[i].weight.detach().std())

    @torch.no_grad()
    def follow(self) -> None:
        """Begin anew with a network whose units are all new."""
        self.layers = layers = chain(self.learner, "cbp")
        for i in range(len(self.most)):
            for name in ("utility", "output", "age", "new", "due"):
                self.get_buffer(f"{name}_{i}").zero_()
            self.get_buffer(f"bound_{i}").copy_(math.sqrt(3) * layers[i].weight.std())

    def loss(self, batch: Batch) -> tuple[Tensor, Aux]:
        """Return the plain loss, and of every unit its mean output and how large it is for the utility."""
        hidden = self.learner.activations(batch.x)
        aux: Aux = {}
        for i, h in enumerate(hidden):
            flat = h.detach().transpose(0, 1).flatten(1)  # (width, all samples and places)
            aux[f"mean_{i}"] = flat.mean(1)
            if self.utility == "adaptable_contribution":
                output, age = self.get_buffer(f"output_{i}"), self.get_buffer(f"age_{i}") + 1
                mean = (self.decay * output + (1 - self.decay) * aux[f"mean_{i}"]) / (1 - self.decay**age)
                flat = flat - mean[:, None]
            aux[f"size_{i}"] = flat.abs().mean(1)
        return self.criterion(self.learner.head(self.learner.pool(hidden[-1])), batch), aux

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Update utilities and replace the units that are due."""
        shapes = [(n, self.layers[i].weight[0].numel()) for i, n in enumerate(self.most)]
        draws = uniforms(batch.key, shapes, [f"unit/{i}" for i in range(len(self.most))])
        for i, draw in enumerate(draws):
            layer, after = self.layers[i], self.layers[i + 1]
            utility, output, age = (self.get_buffer(f"{name}_{i}") for name in ("utility", "output", "age"))
            due = self.get_buffer(f"due_{i}")
            out = after.weight.view(after.weight.shape[0], len(age), -1)  # (next, width, inputs a unit feeds)
            worth = aux[f"size_{i}"] * out.abs().sum((0, 2))
            if self.utility == "adaptable_contribution":
                worth = worth / layer.weight.flatten(1).abs().sum(1).clamp_min(1e-12)
            age.add_(1)
            utility.mul_(self.decay).add_((1 - self.decay) * worth)
            output.mul_(self.decay).add_((1 - self.decay) * aux[f"mean_{i}"])
            correction = 1 - self.decay**age
            mature = age > self.maturity
            due.add_(self.rate * mature.sum())
            worst, units = torch.where(mature, utility / correction, torch.inf).topk(self.most[i], largest=False)
            chosen = (torch.arange(self.most[i], device=due.device) < due.floor()) & torch.isfinite(worst)
            due.sub_(chosen.sum())
            gone = torch.zeros_like(mature).scatter(0, units, chosen)
            new = self.get_buffer(f"bound_{i}") * (2 * draw - 1)
            self.replace(i, units, chosen, gone, new, output / correction)
            for buffer in (utility, output, age):
                buffer.masked_fill_(gone, 0)

    def replace(self, i: int, units: Tensor, chosen: Tensor, gone: Tensor, new: Tensor, output: Tensor) -> None:
        """Give `new` weights (n, inputs) in and zero weights out to those `units` (n,) of block i that are `chosen`.

        The next biases take over their mean `output` (width,); `gone` (width,) marks the chosen units.
        """
        layer, after = self.layers[i], self.layers[i + 1]
        weight, replaced = layer.weight.flatten(1), self.get_buffer(f"new_{i}")
        weight[units] = torch.where(chosen[:, None], new, weight[units])
        replaced.copy_(gone)
        out = after.weight.view(after.weight.shape[0], len(gone), -1)
        if after.bias is not None:
            after.bias.add_(out.sum(2) @ (output * replaced))
        out.mul_(1 - replaced[None, :, None])
        if layer.bias is not None:
            layer.bias.masked_fill_(gone, 0)

    def edit_moments(self, moments: Moments) -> None:
        """Forget the moments of the weights into and out of the units that were just replaced."""
        for i in range(len(self.most)):
            before, after = self.names[i], self.names[i + 1]
            own = [m for leaf in ("weight", "bias") for m in moments.get(before + leaf, {}).values()]
            following = list(moments.get(f"{after}weight", {}).values())
            if own or following:
                stays = 1 - self.get_buffer(f"new_{i}")
                for moment in own:
                    moment.mul_(stays.reshape(-1, *(1 for _ in moment.shape[1:])))
                for moment in following:
                    moment.mul_(as_inputs(stays, self.layers[i + 1]))
