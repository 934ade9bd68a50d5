"""PackNet: after each task, prune its weights, retrain what is left, and give the freed weights to later tasks."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from cl import objectives
from cl.batch import Batch
from cl.build import Conditions
from cl.errors import expect
from cl.learners.base import Learner
from cl.learners.connections import connections
from cl.learners.layers import hold_statistics
from cl.parameters import PerParameter
from cl.seeding import derive, generator
from cl.strategy import Aux, Network, Paper, Strategy
from cl.streams.base import StreamInfo, Task


class PackNet(Strategy):
    """Every weight belongs to the task that it was trained for, or to none yet; a task uses its own and earlier ones.

    At the end of a task, in each layer the smallest `prune` share of the weights it trained is set to zero and freed,
    the others become its own, are retrained for `retrain_epochs`, and never change again. Biases and normalisation are
    trained with the first task only. With a head per task, its rows are the task's and are not pruned. The last task
    of the stream keeps all weights that were free, as in the authors' runs.

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        prune: share of the task's weights to free, in (0, 1); the paper studies .5 and .75.
        retrain_epochs: epochs of retraining; half the epochs of training in the paper.
        retrain_lr: learning rate of the retraining (SGD, momentum .9); paper: a tenth of the training rate.
        retrain_batch_size: its batch size; 32 in the paper.

    Differs from the paper: owned weights are also put back after every step, so that the promise holds for any
    optimiser; the copy this takes is counted in the bytes.
    """

    paper = Paper(
        "PackNet: adding multiple tasks to a single network by iterative pruning",
        2018,
        "https://arxiv.org/abs/1711.05769",
    )
    scenarios: ClassVar[tuple[str, ...]] = ("task",)
    needs_task_id: ClassVar[bool] = True
    protects: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"retrain_epochs": 2}
    packed: Tensor
    only_with: ClassVar[Conditions] = {name: {"retrain_epochs": "> 0"} for name in ("retrain_lr", "retrain_batch_size")}

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        prune: float = 0.75,
        retrain_epochs: int = 1,
        retrain_lr: float = 0.01,
        retrain_batch_size: int = 32,
    ) -> None:
        super().__init__(learner, info)
        expect(0 < prune < 1, "strategy.prune", "in (0, 1)", prune)
        expect(retrain_epochs >= 0, "strategy.retrain_epochs", ">= 0", retrain_epochs)
        expect(retrain_lr > 0, "strategy.retrain_lr", "> 0", retrain_lr)
        expect(retrain_batch_size > 0, "strategy.retrain_batch_size", "> 0", retrain_batch_size)
        expect(info.n_tasks < 255, "stream.tasks", "< 255 for packnet (a byte says whose a weight is)", info.n_tasks)
        self.prune, self.retrain_epochs = prune, retrain_epochs
        self.retrain_lr, self.retrain_batch_size = retrain_lr, retrain_batch_size
        self.prunable = connections(learner, "packnet", head=self.head != "multi")
        frozen = [n for n, p in learner.named_parameters() if n in self.prunable and not p.requires_grad]
        expect(not frozen, "learner", "with all weights trained for packnet, which gives them to tasks", frozen)
        self.head_rows = [n for n, _ in learner.named_parameters() if n.startswith("head.") and self.head == "multi"]
        kept = (*self.prunable, *self.head_rows)
        self.values = PerParameter(learner, start="values", only=kept)  # of weights that belong to a task
        self.owner = PerParameter(learner, only=self.prunable, dtype=torch.uint8)  # task + 1, or 0
        self.register_buffer("packed", torch.zeros((), dtype=torch.long))  # tasks done

    def grow(self, k: int) -> None:
        """Leave only weights (and the head's rows) trainable after the first task."""
        for name, parameter in self.learner.named_parameters() if k > 0 else ():
            parameter.requires_grad_(name in self.values)

    def train(self, mode: bool = True) -> "PackNet":
        """Keep normalisation as the first task left it."""
        super().train(mode)
        if not all(p.requires_grad for p in self.learner.parameters()):  # after the first task
            hold_statistics(self.learner)
        return self

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Clear those of weights that belong to an earlier task, which would count in `training.clip_norm`."""
        free = {name: owner == 0 for name, owner in self.owner.items()}
        return grads | {f"learner.{n}": grads[f"learner.{n}"] * mask for n, mask in free.items()}

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Put back every weight that belongs to an earlier task."""
        self.restore(self.tasks_seen)

    def restore(self, task: Tensor, pruned: bool = False) -> None:
        """Undo changes of weights that are not free for `task` () to change; when retraining, free ones stay zero."""
        for name, p in self.learner.named_parameters():
            if name in self.owner:
                mine = self.owner[name] == (task + 1 if pruned else 0)
                p.copy_(torch.where(mine, p, self.values[name]))
            elif name in self.values:
                rows = self.learner.head_rows(self.task_classes[task])
                p.copy_(torch.where(rows.reshape(-1, *(1 for _ in p.shape[1:])), p, self.values[name]))

    def weights(self, task: int) -> dict[str, Tensor]:
        """Return the weights of the task and of those before it (all weights for a task not packed yet), by name."""
        found = {}
        for name, p in self.learner.named_parameters():
            if name in self.owner:
                owned = (self.owner[name] > 0) & (self.owner[name] <= task + 1)
                found[name] = p * (owned | (self.packed <= task))
        return found

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Use the weights of the task."""
        assert task is not None
        return objectives.mask_logits(functional_call(self.learner, self.weights(task), (x,)), self.task_classes[task])

    def network(self, task: int | None) -> Network:
        """Return a copy of the learner with the weights of the task."""
        assert task is not None
        learner = copy.deepcopy(self.learner)
        learner.load_state_dict(self.weights(task), strict=False)
        return Network(learner)

    def end_task(self, task: Task) -> None:
        """Prune, retrain, and take stock; nobody comes after the last task, which keeps what is free."""
        last = task.index + 1 == self.info.n_tasks
        share = 0.0 if last else self.prune
        with torch.no_grad():
            for name, p in self.learner.named_parameters():
                if name in self.owner:
                    owner = self.owner[name]
                    free = owner == 0
                    size = torch.where(free, p.abs(), torch.inf)
                    freed = size.flatten().argsort()[: int(share * int(free.sum()))]
                    owner[free] = task.index + 1
                    owner.view(-1)[freed] = 0
                    p.view(-1)[freed] = 0.0
            self.values.copy_from(self.learner)
        if not last:
            self.retrain(task)
            self.values.copy_from(self.learner)
        self.packed.fill_(task.index + 1)

    def retrain(self, task: Task) -> None:
        """Train the task's own weights without the freed ones (the engine trains before pruning, this after it)."""
        k, device = task.index, self.packed.device
        parameters = [p for p in self.learner.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=self.retrain_lr, momentum=0.9)
        self.train()
        for epoch in range(self.retrain_epochs):
            order = torch.randperm(len(task.train), generator=generator(self.info.seed, "retrain", k, epoch))
            for step, positions in enumerate(torch.split(order.to(device), self.retrain_batch_size)):
                key = torch.tensor(derive(self.info.seed, "retrain", k, epoch, step), device=device)
                loss, _ = self("training_loss", task.train.batch(positions, key))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    self.restore(self.tasks_seen, pruned=True)
        self.eval()
