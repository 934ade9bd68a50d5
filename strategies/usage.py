"""Usage-based forgetting: connections that are used often grow firm, unused ones fade."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.learners.chain import as_inputs, as_outputs, chain
from cl.parameters import PerParameter
from cl.strategy import Aux, Paper, Strategy
from cl.streams.base import StreamInfo


class Usage(Strategy):
    """Each connection keeps a trace of its use; use makes it firm, disuse lets it decay to zero.

    use_ij = |h_j| |w_ij| |h_i| (batch means; Hebbian, as the importance of Aljundi et al. 2018, Memory aware synapses),
    trace <- memory * trace + (1 - memory) * use, and plasticity = 1 / (1 + firm * trace / the layer's mean use): near 1
    while a connection is young or unused. The optimiser's step is taken by that share, then the weight decays by
    fade * plasticity.

    The hypothesis is that forgetting fights overfitting: what is not used is noise of a past episode, and its decay
    leaves simpler memories that generalise. It is argued in neuroscience (Richards and Frankland 2017, The persistence
    and transience of memory; Davis and Zhong 2017, The biology of forgetting), where active decay is countered by use.
    Its parts in machine learning: decay of all connections against learning (Ishikawa 1996, Structural learning with
    forgetting), decay adapted to each weight (Nakamura and Hong 2019, Adaptive weight decay for deep neural networks)
    and forgetting in a balance with consolidation (Wang et al. 2021, AFEC). The method is put together here, and is in
    none of these papers as such. The head is left alone: rows of absent classes are unused, not useless.

    Args:
        learner: blocks of one weight layer (mlp, cnn).
        info: see `Strategy`.
        firm: how firm use makes a connection, >= 0: one of mean use ends with a plasticity of 1 / (1 + firm).
        fade: rate at which an unused connection decays, a step, in [0, 1].
        memory: decay of the trace, a step, in [0, 1); .999 remembers about 1000 steps.
    """

    paper = Paper("The persistence and transience of memory", 2017, "https://doi.org/10.1016/j.neuron.2017.04.037")
    protects = ("task", "domain")
    bare = True
    neutral: ClassVar[Mapping[str, Any] | None] = {"firm": 0.0, "fade": 0.0}

    def __init__(
        self, learner: Learner, info: StreamInfo, firm: float = 10.0, fade: float = 1e-4, memory: float = 0.999
    ) -> None:
        super().__init__(learner, info)
        expect(firm >= 0, "strategy.firm", ">= 0", firm)
        expect(0 <= fade <= 1, "strategy.fade", "in [0, 1]", fade)
        expect(0 <= memory < 1, "strategy.memory", "in [0, 1)", memory)
        self.firm, self.fade, self.memory = firm, fade, memory
        layers = chain(learner, "usage")[:-1]
        self.flat = isinstance(layers[0], nn.Linear)  # each pixel is an input of its own
        weights = {id(layer.weight) for layer in layers}
        self.names = tuple(name for name, p in learner.named_parameters() if id(p) in weights)
        self.trace = PerParameter(learner, only=self.names)
        self.before = PerParameter(learner, only=self.names)  # weights before the present step

    def loss(self, batch: Batch) -> tuple[Tensor, Aux]:
        """Return the plain loss, and the mean size of every input and unit."""
        hidden = self.learner.activations(batch.x)
        x = batch.x.flatten(1) if self.flat else batch.x
        sizes = [h.detach().abs().transpose(0, 1).flatten(1).mean(1) for h in (x, *hidden)]
        logits = self.learner.head(self.learner.pool(hidden[-1]))
        return self.criterion(logits, batch), {f"size_{i}": size for i, size in enumerate(sizes)}

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Remember where the step starts."""
        self.before.copy_from(self.learner)
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Update the traces; hold the firm connections, let the unused ones fade."""
        layers = chain(self.learner, "usage")[:-1]
        for i, (name, layer) in enumerate(zip(self.names, layers, strict=True)):
            weight, trace = layer.weight, self.trace[name]
            sent, received = aux[f"size_{i}"], aux[f"size_{i + 1}"]
            use = as_inputs(sent, layer) * weight.abs() * as_outputs(received, layer)
            trace.copy_(self.memory * trace + (1 - self.memory) * use)
            plasticity = 1 / (1 + self.firm * trace / use.mean().clamp_min(1e-30))
            taken = torch.lerp(self.before[name], weight, plasticity)
            weight.copy_(taken * (1 - self.fade * plasticity))
