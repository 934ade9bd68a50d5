"""Drives a strategy through a stream; the only place that knows about steps, devices and speed."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl.errors import TrainingError
from cl.evaluator import EvaluationOptions, Evaluator
from cl.results import Results
from cl.seeding import step_keys
from cl.strategy import Strategy, overrides
from cl.streams.base import Stream, Task, TrainingView
from cl.streams.data import TrainingData
from cl.trackers.base import Tracker
from cl.training import Schedule, TrainingOptions

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
BLOCK = 50  # steps between two looks at the losses: one synchronisation a block


class Updater:
    """The plain optimisation step, and what a strategy's own `step` may use of it.

    Args:
        make_optimizer: from parameters to an optimiser.
        clip_norm: largest gradient norm, or None.
        autocast: dtype of mixed precision, or None.
        device: where the learner lives.
    """

    def __init__(
        self,
        make_optimizer: OptimizerFactory,
        clip_norm: float | None,
        autocast: torch.dtype | None,
        device: torch.device,
    ) -> None:
        self.make_optimizer, self.clip_norm = make_optimizer, clip_norm
        self.autocast, self.device = autocast, device
        self.optimizer: torch.optim.Optimizer | None = None
        self.parameters: dict[str, nn.Parameter] = {}

    def refresh(self, strategy: Strategy, reset: bool) -> None:
        """Follow the strategy's trainable parameters; moments of parameters that stay are kept unless `reset`."""
        old = self.optimizer
        self.parameters = {n: p for n, p in strategy.named_parameters() if p.requires_grad}
        self.optimizer = self.make_optimizer(self.parameters.values()) if self.parameters else None
        if old is not None and self.optimizer is not None and not reset:
            for p in self.parameters.values():
                if p in old.state:
                    self.optimizer.state[p] = old.state[p]

    def training_loss(self, strategy: Strategy, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (loss, aux) of a batch, in mixed precision if asked."""
        if self.autocast is None:
            result: tuple[Tensor, dict[str, Tensor]] = strategy("training_loss", batch)
            return result
        with torch.autocast(self.device.type, dtype=self.autocast):
            result = strategy("training_loss", batch)
        return result

    def __call__(self, strategy: Strategy, batch: Any) -> Tensor:
        """Take one step of the contract: loss, gradients, clipping, optimiser, after_step."""
        loss, aux = self.training_loss(strategy, batch)
        edit = (lambda g: strategy("gradients", g, batch, aux)) if overrides(strategy, "gradients") else None
        self.minimise(loss, edit)
        if overrides(strategy, "after_step"):
            with torch.no_grad():
                strategy("after_step", batch, aux)
        return loss.detach()

    def minimise(self, loss: Tensor, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None) -> None:
        """Take one optimiser step down `loss` (); `edit` changes the gradients before they are clipped."""
        if self.optimizer is None:
            return
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if edit is not None:
            grads = {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in self.parameters.items()}
            with torch.no_grad():
                edited = edit(grads)
            for name, p in self.parameters.items():
                p.grad = edited[name]
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.clip_norm)
        self.optimizer.step()


class Engine:
    """Trains one replica on a stream and measures it after every task.

    Args:
        strategy: the strategy, on its device.
        stream: the stream, on the same device.
        make_optimizer: from parameters to an optimiser.
        training: see `TrainingOptions`.
        evaluation: see `EvaluationOptions`.
        make_scheduler: from an optimiser to a learning-rate scheduler stepped every step; made anew for each task.
        precision: ``fp32`` or ``bf16`` (autocast).
        trackers: told of progress and results.
    """

    def __init__(
        self,
        strategy: Strategy,
        stream: Stream,
        make_optimizer: OptimizerFactory,
        training: TrainingOptions,
        evaluation: EvaluationOptions,
        make_scheduler: SchedulerFactory | None = None,
        precision: str = "fp32",
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.strategy, self.stream, self.options = strategy, stream, training
        self.make_scheduler, self.trackers = make_scheduler, list(trackers)
        self.seed = stream.info.seed
        self.device = strategy.active.device
        autocast = torch.bfloat16 if precision == "bf16" else None
        self.update = Updater(make_optimizer, training.clip_norm, autocast, self.device)
        self.evaluator = Evaluator(stream, evaluation)
        self.every = evaluation.every
        k = len(stream)
        self.accuracy, self.loss = np.full((k + 1, k), np.nan), np.full((k + 1, k), np.nan)
        self.curves: list[tuple[int, int, Any]] = []
        self.task_steps: list[int] = []
        self.train_losses: list[Tensor] = []
        self.seconds = {"train": 0.0, "evaluate": 0.0, "consolidate": 0.0}
        self.samples = 0

    def run(self) -> Results:
        """Train all tasks and return the results.

        Raises:
            TrainingError: a loss was not finite; `results` holds what was measured before.
        """
        self._evaluate_row(0)
        for k in range(len(self.stream)):
            self.run_task(k)
        return self.results()

    def run_task(self, k: int) -> None:
        """Train task k and evaluate all tasks."""
        strategy, online = self.strategy, self.stream.info.scenario == "online"
        task = self.stream[k]
        started = time.perf_counter()
        if not online:
            strategy.grow(k)
            strategy.enter(k)
            strategy.begin_task(task)
        view = TrainingView(self.stream, k, strategy.sees, type(strategy).__name__)
        data = strategy.training_data(view, k)
        self.update.refresh(strategy, reset=k > 0 and self.options.optimizer_state == "reset" and not online)
        self.seconds["consolidate"] += time.perf_counter() - started
        self._train(task, data)
        started = time.perf_counter()
        if not online:
            strategy.eval()
            strategy.end_task(task)
            strategy.train()
        self.seconds["consolidate"] += time.perf_counter() - started
        self._evaluate_row(k + 1)

    def _train(self, task: Task, data: TrainingData) -> None:
        """Run the steps of a task in blocks; a block ends at a curve point, an epoch or after `BLOCK` steps."""
        k, strategy = task.index, self.strategy
        strategy.train()
        schedule = Schedule(len(data), self.options, self.seed, k, data.tasks, data.batch_scale)
        scheduler = (
            self.make_scheduler(self.update.optimizer) if self.make_scheduler and self.update.optimizer else None
        )
        keys = step_keys(self.seed, k, 0, schedule.steps, self.device)
        losses = torch.zeros(schedule.steps, device=self.device)
        stopping = EarlyStopping(self.options.patience, task, strategy)
        batches = data.batches(schedule.positions(0, schedule.steps, self.device), keys)
        first, started = 0, time.perf_counter()
        for step, batch in enumerate(batches):
            losses[step] = strategy.step(batch, self.update)
            if scheduler is not None:
                scheduler.step()
            self.samples += len(batch.y)
            done = step + 1
            measure = self.every is not None and done % self.every == 0
            epoch_end = done % schedule.steps_per_epoch == 0
            if not (measure or epoch_end or done % BLOCK == 0 or done == schedule.steps):
                continue
            self._look(k, losses, first, done, schedule.steps)
            first = done
            if measure:
                self.seconds["train"] += time.perf_counter() - started
                self._evaluate_point(k, sum(self.task_steps) + done)
                started = time.perf_counter()
            if epoch_end and stopping.should_stop():
                break
        self.seconds["train"] += time.perf_counter() - started
        self.task_steps.append(first)
        self.train_losses.append(losses[:first].cpu())

    def _look(self, k: int, losses: Tensor, first: int, done: int, steps: int) -> None:
        """Fetch the losses of a block: stop on one that is not finite, tell the trackers."""
        block = losses[first:done].cpu()
        bad = (~torch.isfinite(block)).nonzero()
        if len(bad) > 0:
            step = first + int(bad[0])
            self.task_steps.append(step)
            self.train_losses.append(losses[:step].cpu())
            raise TrainingError(
                f"Expected a finite loss, got {float(block[int(bad[0])])} at task {k}, step {step}; "
                "try a smaller learning rate or strength, or training.clip_norm"
            )
        for tracker in self.trackers:
            tracker.progress(k, done, steps, float(block.mean()))

    def _evaluate_row(self, row: int) -> None:
        started = time.perf_counter()
        self.accuracy[row], self.loss[row] = self.evaluator.row(self.strategy)
        self.seconds["evaluate"] += time.perf_counter() - started
        for tracker in self.trackers:
            tracker.row(row, sum(self.task_steps), self.accuracy[row], self.loss[row])

    def _evaluate_point(self, k: int, step: int) -> None:
        started = time.perf_counter()
        accuracy = self.evaluator.point(self.strategy, k)
        self.curves.append((step, k, accuracy))
        self.seconds["evaluate"] += time.perf_counter() - started
        for tracker in self.trackers:
            tracker.curve(step, k, accuracy)

    def results(self) -> Results:
        """Return what was measured so far."""
        k = len(self.stream)
        costs: dict[str, Any] = {f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()}
        costs |= {"samples": self.samples, "steps": sum(self.task_steps)}
        costs |= {f"bytes_{kind}": size for kind, size in self.strategy.stored_bytes().items()}
        return Results(
            accuracy=self.accuracy[None].copy(),
            loss=self.loss[None].copy(),
            seeds=[self.seed],
            curve_step=np.array([c[0] for c in self.curves], np.int64),
            curve_task=np.array([c[1] for c in self.curves], np.int64),
            curve_accuracy=np.array([c[2] for c in self.curves]).reshape(1, len(self.curves), k),
            task_steps=np.array(self.task_steps, np.int64),
            train_loss=torch.cat([torch.zeros(0), *self.train_losses]).numpy()[None],
            costs=costs,
        )


class EarlyStopping:
    """Ends a task when the validation loss has not improved for `patience` epochs.

    Args:
        patience: epochs to wait, or None for never.
        task: the task; it needs a validation split.
        strategy: the strategy to measure.
    """

    def __init__(self, patience: int | None, task: Task, strategy: Strategy) -> None:
        self.patience, self.task, self.strategy = patience, task, strategy
        self.best, self.waited = float("inf"), 0

    def should_stop(self) -> bool:
        """Measure the validation loss at the end of an epoch and decide."""
        if self.patience is None or self.task.validation is None:
            return False
        self.strategy.eval()
        with torch.no_grad():
            total = sum(
                float(self.strategy.per_sample(self.strategy.logits(b.x, b.task), b).sum())
                for b in self.task.validation.in_order(1000)
            )
        self.strategy.train()
        loss = total / len(self.task.validation)
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(loss, self.best)
        return self.waited >= self.patience
