"""Drives a strategy through a stream; the only place that knows about steps, devices and speed.

A run can be cut and continued at any step: everything that is drawn is a function of the seed and the position, so the
state is the strategy, the optimiser, the position and what was measured.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl.errors import TrainingError
from cl.evaluator import EvaluationOptions, Evaluator
from cl.results import Results
from cl.seeding import step_keys
from cl.stopping import EarlyStopping
from cl.strategy import Strategy
from cl.streams.base import Stream, Task, TrainingView
from cl.streams.data import TrainingData
from cl.trackers.base import Tracker
from cl.training import Schedule, TrainingOptions
from cl.update import OptimizerFactory, Updater

SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
BLOCK = 50  # steps between two looks at the losses: one synchronisation a block


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
        pause: called with the engine wherever its state may be saved (after every block of steps and every task); it
            may save `state_dict()`, and may raise to end the run.
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
        pause: Callable[["Engine"], None] | None = None,
    ) -> None:
        self.strategy, self.stream, self.options = strategy, stream, training
        self.make_scheduler, self.trackers, self.pause = make_scheduler, list(trackers), pause
        self.seed = stream.info.seed
        self.online = stream.info.scenario == "online"
        self.device = strategy.active.device
        autocast = torch.bfloat16 if precision == "bf16" else None
        self.update = Updater(make_optimizer, training.clip_norm, autocast, self.device)
        self.evaluator = Evaluator(stream, evaluation)
        self.every = evaluation.every
        k = len(stream)
        self.task, self.step = 0, 0  # the next step to take
        self.losses = torch.zeros(0, device=self.device)  # of the present task
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.stopping: EarlyStopping | None = None
        self.accuracy, self.loss = np.full((k + 1, k), np.nan), np.full((k + 1, k), np.nan)
        self.curves: list[tuple[int, int, Any]] = []
        self.task_steps: list[int] = []
        self.train_losses: list[Tensor] = []
        self.seconds = {"train": 0.0, "evaluate": 0.0, "consolidate": 0.0}
        self.samples = 0
        self._loaded: dict[str, Any] | None = None

    def run(self) -> Results:
        """Train all tasks that are not done yet and return the results.

        Raises:
            TrainingError: a loss was not finite; `results` holds what was measured before.
        """
        if np.isnan(self.accuracy[0]).all():
            self._evaluate_row(0)
        for k in range(self.task, len(self.stream)):
            self.run_task(k)
        return self.results()

    def run_task(self, k: int) -> None:
        """Train task k, from the step where it was left, and evaluate all tasks."""
        strategy = self.strategy
        task = self.stream[k]
        started = time.perf_counter()
        data = self._begin(task)
        self.seconds["consolidate"] += time.perf_counter() - started
        self._train(task, data)
        started = time.perf_counter()
        if not self.online:
            strategy.eval()
            strategy.end_task(task)
            strategy.train()
        self.seconds["consolidate"] += time.perf_counter() - started
        self._evaluate_row(k + 1)
        self.task, self.step = k + 1, 0
        if self.pause is not None:
            self.pause(self)

    def _begin(self, task: Task) -> TrainingData:
        """Prepare the strategy, its data, the optimiser and the schedule; a loaded state overwrites all of it."""
        strategy, k = self.strategy, task.index
        state, self._loaded = self._loaded, None
        if not self.online:
            strategy.grow(k)
            if state is not None:  # begin_task may look at what earlier tasks left
                strategy.load_state(state["strategy"])
            strategy.enter(k)
            strategy.begin_task(task)
        if state is not None:
            strategy.load_state(state["strategy"])
        view = TrainingView(self.stream, k, strategy.sees, type(strategy).__name__)
        data = strategy.training_data(view, k)
        self.update.refresh(strategy, reset=k > 0 and self.options.optimizer_state == "reset" and not self.online)
        optimizer = self.update.optimizer
        self.scheduler = self.make_scheduler(optimizer) if self.make_scheduler and optimizer else None
        self.stopping = EarlyStopping(self.options.patience, task, strategy)
        schedule = Schedule(len(data), self.options, self.seed, k, data.tasks, data.batch_scale)
        self.losses = torch.zeros(schedule.steps, device=self.device)
        if state is not None:
            self.update.load_state_dict(state["optimizer"])
            self.losses[: self.step] = state["losses"].to(self.device)
            self.stopping.best, self.stopping.waited = state["stopping"]
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
        return data

    def _train(self, task: Task, data: TrainingData) -> None:
        """Run the steps of a task in blocks; a block ends at a curve point, an epoch or after `BLOCK` steps."""
        k, strategy = task.index, self.strategy
        strategy.train()
        schedule = Schedule(len(data), self.options, self.seed, k, data.tasks, data.batch_scale)
        keys = step_keys(self.seed, k, self.step, schedule.steps - self.step, self.device)
        batches = data.batches(schedule.positions(self.step, schedule.steps, self.device), keys)
        first, started = self.step, time.perf_counter()
        for batch in batches:
            self.losses[self.step] = strategy.step(batch, self.update)
            if self.scheduler is not None:
                self.scheduler.step()
            self.samples += len(batch.y)
            self.step += 1
            measure = self.every is not None and self.step % self.every == 0
            epoch_end = self.step % schedule.steps_per_epoch == 0
            if not (measure or epoch_end or self.step % BLOCK == 0 or self.step == schedule.steps):
                continue
            self._look(k, first, schedule.steps)
            first = self.step
            if measure:
                self.seconds["train"] += time.perf_counter() - started
                self._evaluate_point(k, sum(self.task_steps) + self.step)
                started = time.perf_counter()
            if epoch_end and self.stopping is not None and self.stopping.should_stop():
                break
            if self.pause is not None and self.step < schedule.steps:
                self.pause(self)
        self.seconds["train"] += time.perf_counter() - started
        self.task_steps.append(self.step)
        self.train_losses.append(self.losses[: self.step].cpu())

    def _look(self, k: int, first: int, steps: int) -> None:
        """Fetch the losses of a block: stop on one that is not finite, tell the trackers."""
        block = self.losses[first : self.step].cpu()
        bad = (~torch.isfinite(block)).nonzero()
        if len(bad) > 0:
            step = first + int(bad[0])
            self.task_steps.append(step)
            self.train_losses.append(self.losses[:step].cpu())
            raise TrainingError(
                f"Expected a finite loss, got {float(block[int(bad[0])])} at task {k}, step {step}; "
                "try a smaller learning rate or strength, or training.clip_norm"
            )
        for tracker in self.trackers:
            tracker.progress(k, self.step, steps, float(block.mean()))

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

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here, in plain types and tensors."""
        stopping = self.stopping
        return {
            "task": self.task,
            "step": self.step,
            "strategy": self.strategy.state_dict(),
            "optimizer": self.update.state_dict(),
            "scheduler": {} if self.scheduler is None else self.scheduler.state_dict(),
            "stopping": [float("inf"), 0] if stopping is None else [stopping.best, stopping.waited],
            "losses": self.losses[: self.step].cpu().clone(),
            "accuracy": self.accuracy.tolist(),
            "loss": self.loss.tolist(),
            "curves": [[step, k, accuracy.tolist()] for step, k, accuracy in self.curves],
            "task_steps": list(self.task_steps),
            "train_losses": [t.clone() for t in self.train_losses],
            "seconds": dict(self.seconds),
            "samples": self.samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the engine must be fresh and of the same configuration.

        The structure is replayed (`Strategy.grow`), then the tensors are loaded. In the middle of a task the rest
        (`begin_task`, data, optimiser) is prepared by `run_task`, which loads the state over it.
        """
        self.task, self.step = int(state["task"]), int(state["step"])
        self.accuracy, self.loss = np.array(state["accuracy"]), np.array(state["loss"])
        self.curves = [(int(step), int(k), np.array(accuracy)) for step, k, accuracy in state["curves"]]
        self.task_steps, self.train_losses = list(state["task_steps"]), list(state["train_losses"])
        self.seconds, self.samples = dict(state["seconds"]), int(state["samples"])
        between = self.step == 0
        if not self.online:
            for k in range(self.task):
                self.strategy.grow(k)
        if between or self.online:
            self.strategy.load_state(state["strategy"])
            self.update.refresh(self.strategy, reset=False)
            self.update.load_state_dict(state["optimizer"])
        if not between:
            self._loaded = state
