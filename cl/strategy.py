"""The Strategy contract: one way of learning a stream without forgetting, wrapped around a learner.

A strategy is an `nn.Module`. All of its state is parameters and buffers, so `state_dict()` is the checkpoint, and
`torch.func` can stack S strategies into a population that runs the same methods. Hot-path methods (`loss`, `penalty`,
`gradients`, `after_step`, `edit_moments`, `predict`) are called every step, `remember` every batch, and see tensors
only: no `.item()`, no `if` on data, no boolean-mask indexing. Host-path methods (`grow`, `begin_task`, `end_task`,
`training_data`) are ordinary Python.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cl import objectives
from cl.batch import Batch
from cl.errors import ConfigError, out_of_memory
from cl.learners import readout
from cl.learners.base import Learner
from cl.learners.dropout import Dropout
from cl.returned import scalar

if TYPE_CHECKING:
    from cl.streams.base import StreamInfo, Task, TrainingView
    from cl.streams.data import TrainingData
    from cl.update import Updater

SCENARIOS = ("task", "domain", "class", "online")
Aux = dict[str, Tensor]
Moments = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    year: int
    link: str


class Network(NamedTuple):
    """What a strategy asks about one task, as measures look into it.

    Attributes:
        learner: the network.
        gates: what multiplies the units of each of its blocks, see `Learner.activations`, or None.
    """

    learner: Learner
    gates: list[Tensor] | None = None


class Strategy(nn.Module):
    """Base of all strategies; by itself it is fine-tuning.

    Args:
        learner: the network; strategies reach its parameters through `self.learner`.
        info: facts of the stream (scenario, number of tasks, classes of each task, seed).

    Class facts:
        paper: title, year and link.
        scenarios: the scenarios it supports; a strategy that needs boundaries leaves ``online`` out.
        needs_task_id: True if `predict` must be told the task.
        sees: the training data it may touch: ``current`` (the task at hand), ``past`` (also earlier tasks), ``all``.
        protects: the scenarios in which it claims to forget less than fine-tuning; True stands for all it supports.
        neutral: arguments with which it is exactly fine-tuning, or None where there are none.
        small: arguments that differ from its yaml on the tiny stream of the contract checks (a memory of 2000
            samples, a threshold for images).
        shards: True if its own `loss` is a mean over the batch plus terms that do not depend on the batch, so that
            several processes may share one (`cl.distributed`).
        bare: True if it asks the learner itself, so that it cannot see what another strategy does to `logits` (gates,
            columns).
        rebuilt: plain attributes that `grow`, `begin_task` or `training_data` set anew, which no checkpoint needs; all
            else that changes must be a buffer or a parameter.
        vectorizable: True, or the reason why a population must run it replica by replica.

    Raises:
        ConfigError: the scenario or head is not supported.
    """

    paper: ClassVar[Paper | None] = None
    scenarios: ClassVar[tuple[str, ...]] = SCENARIOS
    needs_task_id: ClassVar[bool] = False
    sees: ClassVar[str] = "current"
    protects: ClassVar[bool | tuple[str, ...]] = False
    neutral: ClassVar[Mapping[str, Any] | None] = None
    small: ClassVar[Mapping[str, Any]] = {}
    bare: ClassVar[bool] = False
    rebuilt: ClassVar[tuple[str, ...]] = ()
    vectorizable: ClassVar[bool | str] = True
    shards: bool = False

    task_classes: Tensor
    active: Tensor
    tasks_seen: Tensor

    def __init__(self, learner: Learner, info: "StreamInfo") -> None:
        super().__init__()
        if info.scenario not in self.scenarios:
            raise ConfigError(
                f"Expected `stream.scenario` in {list(self.scenarios)} for {type(self).__name__}, got {info.scenario!r}"
            )
        self.learner = learner
        self.info = info
        self.head = learner.head_for(info)
        self._dropouts: list[Dropout] | None = None
        task_classes = torch.zeros(info.n_tasks, info.n_classes, dtype=torch.bool)
        for k, classes in enumerate(info.task_classes):
            task_classes[k, list(classes)] = True
        self.register_buffer("task_classes", task_classes, persistent=False)
        self.register_buffer("active", torch.ones(info.n_classes, dtype=torch.bool))
        self.register_buffer("tasks_seen", torch.zeros((), dtype=torch.long))

    # ---- hot path -----------------------------------------------------------------------------------------------

    def logits(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Return the network's raw outputs (B, C) or (B, T, C); the place to gate, route or add columns.

        Args:
            x: (B, *input).
            task: (B,) int64, or None where the task is unknown.
        """
        out: Tensor = self.learner(x)
        return out

    def allowed(self, task: Tensor) -> Tensor | None:
        """Return the outputs that may be trained: (B, C) or (C,) bool, or None for all of them."""
        if self.head == "multi":
            return self.task_classes[task]
        return self.active if self.head == "growing" else None

    def real(self, x: Tensor) -> Tensor | None:
        """Return which steps have an output that means something: (B, T) bool, or None where no step is padding."""
        return readout.real_steps(x) if self.info.target == "steps" and self.info.padded else None

    def per_sample(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each sample over the outputs that the scenario allows: (B,)."""
        return objectives.per_sample_loss(
            objectives.mask_logits(logits, self.allowed(batch.task)), batch.y, self.info.target
        )

    def criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of a batch over the outputs that the scenario allows: ()."""
        return self.per_sample(logits, batch).mean()

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return what early stopping judges the samples of a validation batch by: (B,)."""
        return self.per_sample(self.logits(batch.x, batch.task), batch)

    def loss(self, batch: Batch) -> Tensor | tuple[Tensor, Aux]:
        """Return the loss () to minimise, or (loss, aux); aux is handed on to `gradients`, `after_step`, `remember`."""
        return self.criterion(self.logits(batch.x, batch.task), batch)

    def penalty(self) -> Tensor:
        """Return a term () added to the loss; a method that only regularises overrides this alone."""
        raise NotImplementedError

    def gradients(self, grads: dict[str, Tensor], batch: Batch, aux: Aux) -> dict[str, Tensor]:
        """Return the gradients to follow, by full parameter name ("learner.blocks.0..."); may write own buffers."""
        return grads

    def after_step(self, batch: Batch, aux: Aux) -> None:
        """Update own buffers and parameters in place after the optimiser's step."""

    def remember(self, batch: Batch, aux: Aux) -> None:
        """Offer a batch to own memories, once, after the last step on it (`training.updates`); `aux` is that step's."""

    def edit_moments(self, moments: Moments) -> None:
        """Edit in place what the optimiser remembers, after `after_step`.

        Args:
            moments: by full parameter name, then by the optimiser's own name (``exp_avg``, ``momentum_buffer``...), the
                tensors it keeps in the parameter's shape; counters of steps are not among them.
        """

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Return scores (B, C) over the outputs the scenario allows at test time; `task` is given only in ``task``."""
        ids = None if task is None else torch.full((x.shape[0],), task, dtype=torch.long, device=x.device)
        return objectives.mask_logits(self.logits(x, ids), self.allowed_at_test(task))

    def allowed_at_test(self, task: int | None) -> Tensor | None:
        """Return the outputs that compete at test time: (C,) bool, or None for all of them."""
        if task is not None:
            return self.task_classes[task]
        return None if self.head == "single" else self.active

    def network(self, task: int | None) -> Network | None:
        """Return the network that `predict` asks about a task (None: not told), or None where no learner stands for it.

        A strategy with a `logits` or `predict` of its own says here what it asks; where it does not, measures of the
        inside of a network leave it out.
        """
        own = overrides(self, "logits") or overrides(self, "predict")
        return None if own else Network(self.learner)

    def step(self, batch: Batch, update: "Updater") -> Tensor:
        """Learn from one batch and return its loss (). Overridden only with a reason in `vectorizable`."""
        return update(self, batch)

    # ---- host path ----------------------------------------------------------------------------------------------

    def grow(self, k: int) -> None:
        """Add the modules that task k needs, or freeze parameters; no data. Replayed in order on resume."""

    def follow(self) -> None:
        """Take up a new network, which `learner` is by the `grow` of a strategy that this one is combined with."""

    def begin_task(self, task: "Task") -> None:
        """Prepare for a task; called after `grow`, before the first step."""

    def end_task(self, task: "Task") -> None:
        """Consolidate after a task: estimate importance, select exemplars."""

    def training_data(self, stream: "TrainingView", k: int) -> "TrainingData":
        """Return what to train on at task k; default: task k alone."""
        return stream.current(k)

    # ---- used by the engine -------------------------------------------------------------------------------------

    def enter(self, k: int) -> None:
        """Note that task k begins: which outputs are active, how many tasks came before."""
        if self.head != "single":
            self.active.copy_(self.task_classes[: k + 1].any(0))
        self.tasks_seen.fill_(k)
        self._dropouts = None

    def training_loss(self, batch: Batch) -> tuple[Tensor, Aux]:
        """Return (loss + penalty, aux) in one form, whatever the strategy overrides."""
        result = self.loss(batch)
        loss, aux = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        loss = scalar(self, "loss", loss)
        if overrides(self, "penalty"):
            loss = loss + scalar(self, "penalty", self.penalty())
        return loss, aux

    def forward(self, kind: str, *args: Any) -> Any:
        """Call a hot-path method by name; the single entry for `torch.func.functional_call`."""
        if self._dropouts is None:
            self._dropouts = [m for m in self.modules() if isinstance(m, Dropout)]
        if self._dropouts:
            for batch in (a for a in args if isinstance(a, Batch)):
                for i, module in enumerate(self._dropouts):
                    module.begin_step(batch.key + i)
        return getattr(self, kind)(*args)

    def stored_bytes(self) -> dict[str, int]:
        """Return the bytes kept beyond the learner, by name of the child module or buffer."""
        own = {id(t) for t in (*self.learner.parameters(), *self.learner.buffers())}
        facts = {"active", "tasks_seen", "task_classes"}
        sizes: dict[str, int] = {}
        for name, tensor in (*self.named_parameters(), *self.named_buffers()):
            if id(tensor) not in own and name.rpartition(".")[2] not in facts and not name.endswith(".dropout_key"):
                kind = name.split(".", 1)[0]
                sizes[kind] = sizes.get(kind, 0) + tensor.numel() * tensor.element_size()
        return sizes

    def growth(self) -> int:
        """Return the bytes that tasks to come may yet add to the state by other ways than `grow`; at most.

        Populations make room for them, and for what `grow` adds.
        """
        return 0

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load a checkpoint; buffers whose shape depends on the data (exemplars) take the stored shape.

        Raises:
            ConfigError: it holds other parts than `__init__` and `grow` made.
        """
        try:
            for name, value in state.items():
                path, _, leaf = name.rpartition(".")
                module = self.get_submodule(path)
                present = module._buffers.get(leaf)
                if leaf in module._buffers and (present is None or present.shape != value.shape):
                    module._buffers[leaf] = value.clone().to(self.active.device)
            self.load_state_dict(dict(state))
        except (AttributeError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"Expected a checkpoint of the parts that {type(self).__name__} makes in __init__ and grow (begin_task "
                f"and end_task are not repeated by a resumed run), got {' '.join(str(error).split())}"
            ) from error


def overrides(strategy: Strategy, method: str) -> bool:
    """Return True if the strategy's class replaces a method of the contract."""
    return getattr(type(strategy), method) is not getattr(Strategy, method)
