"""La-MAML: look-ahead meta-learning with a learned learning rate for every parameter."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from cl.batch import Batch
from cl.build import Conditions
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import Reservoir, augmented, join, kept_inputs, sample_fields, slots
from cl.parameters import PerParameter
from cl.seeding import derive
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo
from cl.update import Updater


class LaMAML(Strategy):
    """Try the batch sample by sample, ask how that looks for the past, and move only where it looks well.

    theta_{j+1} = theta_j - max(0, alpha) * grad loss(theta_j, sample j); then, with L the loss on the batch joined with
    recalled samples, alpha <- alpha - alpha_rate * dL/d alpha and theta <- theta_0 - max(0, alpha) * dL/d theta_0
    (paper, algorithm 1). The run's optimiser is not used: the method is one.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        memory_size: slots of the reservoir; 200 in the paper on MNIST.
        per: what `memory_size` is counted for, see `ER`.
        replay_batch: samples recalled a step; 10 in the paper.
        glances: updates on each batch; the paper studies 1 to 10 (5 on MNIST rotations).
        alpha: first value of every learning rate, > 0.
        alpha_rate: learning rate of the learning rates, >= 0.
        look: where L is taken: at the ``last`` look-ahead step (the paper's algorithm) or the mean over ``all`` of them
            (the authors' code, behind the paper's numbers).
        learn: ``alpha`` (La-MAML), ``sync`` (Sync La-MAML: theta moves by the fixed `rate`) or ``none`` (C-MAML: alpha
            is fixed too).
        rate: step of theta for ``sync`` and ``none``, > 0.
        clip: largest norm of the meta-gradient, or None; 2 in the authors' code.
        group: samples of one look-ahead step; 1 in the paper, more is faster.
        second_order: True differentiates through the inner gradients; False takes them as constants, as the paper does.

    Differs from the paper: the algorithm lets a learning rate that fell below 0 climb in the look-ahead; here it counts
    as 0 there too, as in the authors' code.
    """

    paper = Paper("Look-ahead meta learning for continual learning", 2020, "https://arxiv.org/abs/2007.13904")
    protects: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"memory_size": 60, "glances": 1, "alpha": 0.1, "group": 16}
    only_with: ClassVar[Conditions] = {
        "alpha_rate": {"learn": ("alpha", "sync")},
        "rate": {"learn": ("sync", "none")},
    }
    vectorizable: ClassVar[bool | str] = "an inner loop of look-ahead steps with gradients of its own"

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 200,
        per: str = "all",
        replay_batch: int = 10,
        glances: int = 5,
        alpha: float = 0.15,
        alpha_rate: float = 0.3,
        look: str = "all",
        learn: str = "alpha",
        rate: float = 0.1,
        clip: float | None = 2.0,
        group: int = 1,
        second_order: bool = False,
    ) -> None:
        super().__init__(learner, info)
        expect(replay_batch > 0, "strategy.replay_batch", "> 0", replay_batch)
        expect(glances > 0, "strategy.glances", "> 0", glances)
        expect(alpha > 0, "strategy.alpha", "> 0", alpha)
        expect(alpha_rate >= 0, "strategy.alpha_rate", ">= 0", alpha_rate)
        expect(look in ("last", "all"), "strategy.look", "in ['last', 'all']", look)
        expect(learn in ("alpha", "sync", "none"), "strategy.learn", "in ['alpha', 'sync', 'none']", learn)
        expect(rate > 0, "strategy.rate", "> 0", rate)
        expect(clip is None or clip > 0, "strategy.clip", "> 0", clip)
        expect(group > 0, "strategy.group", "> 0", group)
        self.group, self.look = group, look
        self.replay_batch, self.glances, self.alpha_rate = replay_batch, glances, alpha_rate
        self.learn, self.rate, self.clip, self.second_order = learn, rate, clip, second_order
        self.memory = Reservoir(slots(info, memory_size, per), sample_fields(info))
        self.alpha = PerParameter(learner)
        for _, value in self.alpha.items():
            value.fill_(alpha)

    def step(self, batch: Batch, update: Updater) -> Tensor:
        """Take `glances` meta-updates on a batch; return the mean meta-loss ()."""
        losses = []
        for glance in range(self.glances):
            key = batch.key + derive(0, "glance", glance)
            fields, valid = self.memory.sample(self.replay_batch, key)
            stored = int(valid.sum())
            known = augmented(self.info, {name: value[:stored] for name, value in fields.items()}, key, "replay")
            seen = join(batch, known, valid[:stored]) if stored else batch
            losses.append(self.meta_step(batch._replace(key=key), seen._replace(key=key)))
            if glance == 0 and update.last:
                kept = {"x": kept_inputs(self.info, batch), "y": batch.y, "task": batch.task}
                self.memory.add(kept, batch.key)
        return torch.stack(losses).mean()

    def meta_step(self, batch: Batch, seen: Batch) -> Tensor:
        """Look ahead along `batch`, then learn from the loss on `seen` (batch and memory); return that loss ()."""
        weights = {n: p for n, p in self.learner.named_parameters() if p.requires_grad}
        rates = {n: self.alpha[n].clone().requires_grad_() for n in weights}
        ahead: dict[str, Tensor] = dict(weights)
        losses = []
        for j in range(0, len(batch.y), self.group):
            now = slice(j, j + self.group)
            single = Batch(batch.x[now], batch.y[now], batch.task[now], batch.key + derive(0, "single", j))
            inner = torch.autograd.grad(
                self.loss_at(ahead, single), list(ahead.values()), create_graph=self.second_order, allow_unused=True
            )
            ahead = {
                n: w if g is None else w - rates[n].clamp(min=0) * g
                for (n, w), g in zip(ahead.items(), inner, strict=True)
            }
            if self.look == "all" or j + self.group >= len(batch.y):
                losses.append(self.loss_at(ahead, seen))
        loss = torch.stack(losses).mean()
        found = torch.autograd.grad(loss, [*weights.values(), *rates.values()], allow_unused=True)
        grads = [torch.zeros_like(g) if f is None else f for f, g in zip(found, [*weights.values()] * 2, strict=True)]
        with torch.no_grad():
            by_weight, by_rate = self.clipped(grads[: len(weights)]), self.clipped(grads[len(weights) :])
            for (name, w), g, r in zip(weights.items(), by_weight, by_rate, strict=True):
                if self.learn != "none":
                    self.alpha[name].sub_(self.alpha_rate * r)
                w.sub_((self.alpha[name].clamp(min=0) if self.learn == "alpha" else self.rate) * g)
        return loss.detach()

    def loss_at(self, weights: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss () of a batch with other weights in the learner."""
        loss, _ = functional_call(self, {f"learner.{n}": w for n, w in weights.items()}, ("training_loss", batch))
        return torch.as_tensor(loss)

    def clipped(self, grads: list[Tensor]) -> list[Tensor]:
        """Scale gradients to a norm of at most `clip`."""
        if self.clip is None:
            return grads
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
        scale = (self.clip / (norm + 1e-6)).clamp(max=1)
        return [g * scale for g in grads]
