"""Hard attention to the task: learned, nearly binary gates on units protect what earlier tasks use."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.learners.chain import as_inputs, as_outputs, chain
from cl.parameters import PerParameter
from cl.strategy import Aux, Network, Paper, Strategy
from cl.streams.base import StreamInfo, Task

COSH_LIMIT, EMBEDDING_LIMIT = 50.0, 6.0  # as in the authors' code


class HAT(Strategy):
    """Gate the units of each block by sigmoid(s e), e an embedding of the task learned with the weights.

    Args:
        learner: blocks of one weight layer (mlp, cnn); running statistics of batch normalisation are not protected, and
            no norm over units is possible: what it makes of protected units depends on the free ones.
        info: see `Strategy`.
        strength: c, weight of the regulariser that asks for few units not used before; .75 in the paper.
        s_max: largest slope s of the gates, and the slope at test time; 400 in the paper. In every epoch s rises
            linearly from 1 / s_max to s_max (equation 3).

    Differs from the paper: the mask 1 - min(a_out, a_in) (equation 2) multiplies the optimiser's update, not the
    gradient. For SGD that is the same; with momentum, Adam or weight decay it keeps the promise that a masked weight
    stays. The copy of the weights before a step that this takes is counted in the bytes.
    """

    paper = Paper(
        "Overcoming catastrophic forgetting with hard attention to the task", 2018, "https://arxiv.org/abs/1801.01423"
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task",)
    needs_task_id: ClassVar[bool] = True
    protects: ClassVar[bool] = True
    position: Tensor
    samples: Tensor

    def __init__(self, learner: Learner, info: StreamInfo, strength: float = 0.75, s_max: float = 400.0) -> None:
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        expect(s_max >= 1, "strategy.s_max", ">= 1", s_max)
        self.strength, self.s_max = strength, s_max
        self.layers = chain(learner, "hat")
        norms = [type(m).__name__ for m in learner.blocks.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
        expect(not norms, "learner.norm", "none or batch for hat, whose gates come after it", ", ".join(norms))
        self.embeddings = nn.ParameterList(torch.randn(info.n_tasks, width) for width in learner.widths)
        self.before = PerParameter(self)  # weights and embeddings before the present step
        for i, width in enumerate(learner.widths):
            self.register_buffer(f"used_{i}", torch.zeros(width))  # a^{<=t} of equation 2
        self.register_buffer("position", torch.zeros((), dtype=torch.long))  # samples into the epoch
        self.register_buffer("samples", torch.ones((), dtype=torch.long))  # of an epoch

    def used(self) -> list[Tensor]:
        """Return for each block how much earlier tasks use its units: (width,) in [0, 1]."""
        return [self.get_buffer(f"used_{i}") for i in range(len(self.embeddings))]

    def gates(self, task: Tensor | int, s: Tensor | float) -> list[Tensor]:
        """Return for each block the gates of a task at slope s."""
        return [torch.sigmoid(s * e[task]) for e in self.embeddings]

    def logits(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Return the outputs with each sample's gates at full slope."""
        assert task is not None
        out: Tensor = self.learner(x, self.gates(task, self.s_max))
        return out

    def network(self, task: int | None) -> Network:
        """Return the learner and the task's gates at full slope."""
        assert task is not None
        return Network(self.learner, self.gates(task, self.s_max))

    def loss(self, batch: Batch) -> tuple[Tensor, Aux]:
        """Return the loss with gates at the annealed slope, plus the regulariser (equation 4)."""
        size = len(batch.y)
        start = torch.where(self.position + size > self.samples, 0, self.position)
        progress = (start / (self.samples - size).clamp_min(1)).clamp(max=1)
        s = 1 / self.s_max + (self.s_max - 1 / self.s_max) * progress
        gates = self.gates(self.tasks_seen, s)
        free = 1 - torch.cat(self.used())
        cost = (torch.cat(gates) * free).sum() / free.sum().clamp_min(1e-6)
        loss = self.criterion(self.learner(batch.x, gates), batch) + self.strength * cost
        return loss, {"s": s, "position": start + size}

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Undo the annealing in the embeddings' gradients (equation 5), and remember where the step starts."""
        self.before.copy_from(self)
        for i, e in enumerate(self.embeddings):
            slope = torch.cosh((aux["s"] * e).clamp(-COSH_LIMIT, COSH_LIMIT)) + 1
            name = f"embeddings.{i}"
            grads[name] = grads[name] * self.s_max / aux["s"] * slope / (torch.cosh(e) + 1)
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Take back the part of the step that would change what earlier tasks use."""
        now = dict(self.named_parameters())
        for name, mask in self.masks().items():
            now[name].copy_(torch.lerp(self.before[name], now[name], mask))
        for e in self.embeddings:
            e.copy_(e.clamp(-EMBEDDING_LIMIT, EMBEDDING_LIMIT))

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Go on with the annealing: all steps on a batch (`training.updates`) share its slope."""
        self.position.copy_(aux["position"])

    def masks(self) -> dict[str, Tensor]:
        """Return for each parameter the share of its step that it may take."""
        names = {id(module): name for name, module in self.named_modules()}
        masks: dict[str, Tensor] = {}
        below = None
        for block, layer, used in zip(self.learner.blocks, self.layers, self.used(), strict=False):
            mine = as_outputs(used, layer)
            for module in block.modules():
                for name, parameter in module.named_parameters(names[id(module)], recurse=False):
                    if parameter.shape == used.shape:  # biases, scales
                        masks[name] = 1 - used
            both = mine if below is None else torch.minimum(mine, as_inputs(below, layer))
            masks[f"{names[id(layer)]}.weight"] = (1 - both).expand_as(layer.weight)
            below = used
        head = self.layers[-1]
        if self.head == "multi":  # rows of other tasks stay
            rows = self.task_classes[self.tasks_seen].to(head.weight.dtype)
            weight, bias = rows[:, None], rows
        else:
            weight = 1 - as_inputs(self.used()[-1], head)
            bias = (self.tasks_seen == 0).to(head.weight.dtype).expand(head.weight.shape[0])
        masks[f"{names[id(head)]}.weight"] = weight.expand_as(head.weight)
        if head.bias is not None:
            masks[f"{names[id(head)]}.bias"] = bias
        task = torch.arange(self.info.n_tasks, device=self.tasks_seen.device) == self.tasks_seen
        for i, e in enumerate(self.embeddings):
            masks[f"embeddings.{i}"] = task.to(e.dtype)[:, None].expand_as(e)
        return masks

    def begin_task(self, task: Task) -> None:
        """Start the annealing of an epoch."""
        self.position.zero_()
        self.samples.fill_(len(task.train))

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Add the task's gates to what is in use (equation 2)."""
        for used, gate in zip(self.used(), self.gates(task.index, self.s_max), strict=True):
            used.copy_(torch.maximum(used, gate))
