"""Drives a strategy through a stream; the only place that knows about steps, devices and speed.

A run can be cut and continued at any step: everything that is drawn is a function of the seed and the position, so the
state is the strategy, the optimiser, the position and what was measured.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl.batch import Batch
from cl.costs import Passes, StepPasses, counted
from cl.evaluator import EvaluationOptions, Evaluator
from cl.finite import bad_loss, check_answers, loss_error
from cl.measures.base import Measure
from cl.record import Record
from cl.results import Array, Results
from cl.returned import data_of, scalar
from cl.seeding import derive, drawing, seeded, step_keys
from cl.stopping import EarlyStopping
from cl.strategy import Strategy
from cl.streams.base import Stream, TrainingView
from cl.trackers.base import Tracker
from cl.training import Schedule, TrainingOptions
from cl.unsaved import made_late, parts
from cl.update import OptimizerFactory, Updater

SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
BLOCK = 50  # steps between two looks at the losses: one synchronisation a block
Place = tuple[int, int]  # in a run: task, and steps taken in it
BEGINNING: Place = (0, 0)


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
        measures: look at the strategy before the first task and after every task.
        make_updater: makes the optimisation step; see `cl.distributed` for several processes.
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
        measures: Sequence[Measure] = (),
        make_updater: Callable[..., Updater] = Updater,
    ) -> None:
        self.strategy, self.stream, self.options = strategy, stream, training
        self.make_scheduler, self.trackers, self.pause = make_scheduler, list(trackers), pause
        self.measures = list(measures)
        for measure in self.measures:
            measure.check(strategy)
        self.seed = stream.info.seed
        self.online = stream.info.scenario == "online"
        self.device = strategy.active.device
        autocast = torch.bfloat16 if precision == "bf16" else None
        self.update = make_updater(make_optimizer, training.clip_norm, autocast, self.device, training.compile)
        self.evaluator = Evaluator(stream, evaluation)
        self.every = evaluation.every
        self.record = Record(len(stream))
        self.task, self.step = 0, 0  # the next step to take
        self.losses = torch.zeros(0, device=self.device)  # of the present task
        self.watches = evaluation.online
        self.online_scores = torch.zeros(0, device=self.device)  # of the present task
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.stopping: EarlyStopping | None = None
        self.step_passes = StepPasses(every=True)  # of the present task
        self.parts: set[str] = set()  # of the strategy, when the task was begun
        self._loaded: dict[str, Any] | None = None
        self.block = 0  # first step of the present block
        self.begun = self.stopped = False  # of the present task: prepared; ended early

    @property
    def total_steps(self) -> int:
        """Steps taken since the beginning of the run."""
        return sum(self.record.task_steps[: self.task]) + self.step

    def run(self) -> Results:
        """Train all tasks that are not done yet and return the results.

        Raises:
            TrainingError: a loss or an answer is no number; `results` holds what was measured before.
        """
        if not self.started:
            self.evaluate_row(0)
        for k in range(self.task, len(self.stream)):
            self.run_task(k)
        return self.results()

    def run_task(self, k: int) -> None:
        """Train task k, from the step where it was left, and evaluate all tasks."""
        self.begin(k)
        self.train()
        self.end()
        self.evaluate_row(k + 1)
        self.close()
        self.offer_pause()

    # ---- the parts of a run, also walked by a population -----------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the untrained network has been measured."""
        return not bool(np.isnan(self.record.accuracy[0]).all())

    @property
    def done(self) -> bool:
        """Whether the training of the present task is over."""
        return self.stopped or self.step >= self.schedule.steps

    def begin(self, k: int) -> None:
        """Prepare task k: strategy, data, optimiser and schedule; a loaded state overwrites all of it."""
        with seeded(self.seed, "own, beginning", k):
            self._begin(k)

    def _begin(self, k: int) -> None:
        started = time.perf_counter()
        check_answers(self.strategy, k, self.record.accuracy[k], self.record.loss[k])
        strategy, task = self.strategy, self.stream[k]
        state, self._loaded = self._loaded, None
        if not self.online:
            strategy.grow(k)
            if state is not None:  # begin_task may look at what earlier tasks left
                strategy.load_state(state["strategy"])
            strategy.enter(k)
            self.parts = parts(strategy)
        if state is None:
            for measure in self.measures:
                measure.before_task(k, strategy, self.stream)
        if not self.online:
            with counted(strategy) as passes:
                strategy.begin_task(task)
            self.record.passes.add(passes)
        if state is not None:
            strategy.load_state(state["strategy"])
        view = TrainingView(self.stream, k, strategy.sees, type(strategy).__name__)
        self.data = data_of(strategy, strategy.training_data(view, k))
        self.step_passes = StepPasses(strategy.vectorizable is not True and not self.options.compile)
        self.update.refresh(strategy, reset=k > 0 and self.options.optimizer_state == "reset" and not self.online)
        trained = sum(p.numel() for p in self.update.parameters.values())
        self.record.parameters_trained = max(self.record.parameters_trained, trained)
        optimizer = self.update.optimizer
        self.scheduler = self.make_scheduler(optimizer) if self.make_scheduler and optimizer else None
        data = self.data
        own = [] if task.validation is None else [task.validation]
        held_out = own if data.validation is None else data.validation
        self.stopping = EarlyStopping(self.options.patience, held_out, strategy)
        self.schedule = Schedule(len(data), self.options, self.seed, k, data.tasks, data.batch_scale)
        if self.every is not None and 0 < self.schedule.steps < self.every:
            steps = f"{self.schedule.steps} step{'s' * (self.schedule.steps > 1)}"
            self.update.tell(f"evaluation.every={self.every} measures nothing within tasks of {steps}")
        self.losses = torch.zeros(self.schedule.steps, device=self.device)
        self.online_scores = torch.zeros(self.schedule.steps if self.watches else 0, device=self.device)
        if state is not None:
            self.update.load_state_dict(state["optimizer"])
            self.losses[: self.step] = state["losses"].to(self.device)
            self.online_scores[: self.step] = state["online_scores"].to(self.device)
            self.stopping.best, self.stopping.waited = state["stopping"]
            self.record.passes = Passes(*state["passes"])  # `begin_task` was counted before
            self.step_passes.known = {size: Passes(*known) for size, known in state["step_passes"].items()}
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
        self.block, self.begun = self.step, True
        strategy.train()
        self.record.seconds["consolidate"] += time.perf_counter() - started

    def batches(self) -> Iterator[Batch]:
        """Yield the batch of every step of the task, from the next step to take."""
        steps, updates = self.step if self.stopped else self.schedule.steps, self.schedule.updates
        begun = self.step // updates  # the batch of the next step
        keys = step_keys(self.seed, self.task, begun * updates, steps - begun * updates, self.device)
        incoming = self.data.batches(self.schedule.positions(begun, -(-steps // updates), self.device), keys[::updates])
        if updates == 1:
            return incoming
        every = (batch for batch in incoming for _ in range(updates))
        with_keys = zip(every, keys, strict=False)  # the last batch may have fewer steps
        return (batch._replace(key=key) for batch, key in islice(with_keys, self.step % updates, None))

    def train(self) -> None:
        """Run the steps of a task in blocks; a block ends at a curve point, an epoch or after `BLOCK` steps."""
        with drawing(self.device):
            self._train()

    def _train(self) -> None:
        started, evaluating = time.perf_counter(), self.record.seconds["evaluate"]
        for batch in self.batches():
            if self.step == self.block:  # nothing here draws from torch's own generator, but a class of a user's may
                torch.manual_seed(derive(self.seed, "own", self.task, self.step))
            if self.watches:
                self.online_scores[self.step] = self.score_before(batch)
            self.update.last = self.schedule.ends_batch(self.step)
            take = partial(self.strategy.step, batch, self.update)
            kind = len(batch.y) if self.update.last else -len(batch.y)
            loss, passes = self.step_passes.take(self.strategy, kind, take)
            self.losses[self.step] = scalar(self.strategy, "step", loss)
            self.record.passes.add(passes)
            if self.scheduler is not None:
                self.scheduler.step()
            if self.advance(len(batch.y)):
                self.look(self.losses[self.block : self.step].cpu())
                if self.measure_due:
                    self.evaluate_point()
                self.check_stopping()
                self.offer_pause()
                if self.stopped:
                    break
        self.record.seconds["train"] += time.perf_counter() - started - (self.record.seconds["evaluate"] - evaluating)

    def score_before(self, batch: Batch) -> Tensor:
        """Return the accuracy () on a batch before any step was taken on it."""
        if not self.schedule.begins_batch(self.step):
            return self.online_scores[self.step - 1]
        return self.evaluator.before_learning(self.strategy, batch, self.task)

    @property
    def measure_due(self) -> bool:
        """Whether a point of the within-task curve belongs here."""
        return self.every is not None and self.step % self.every == 0

    @property
    def _epoch_end(self) -> bool:
        return self.step % self.schedule.steps_per_epoch == 0

    def advance(self, samples: int) -> bool:
        """Count a step that was taken on `samples` samples; return True if a block of steps ends here."""
        self.record.samples += samples
        self.step += 1
        return self.measure_due or self._epoch_end or self.step % BLOCK == 0 or self.done

    def look(self, block: Tensor) -> None:
        """Look at the losses (n,) of the block that ends here: stop on one that is not finite, tell the trackers."""
        first, self.block = self.block, self.step
        if (bad := bad_loss(block)) is not None:
            self.record.end_task(self.losses[: first + bad])
            raise loss_error(block[bad], self.task, first + bad)
        for tracker in self.trackers:
            tracker.progress(self.task, self.step, self.schedule.steps, float(block.mean()))

    def check_stopping(self) -> None:
        """Ask early stopping, at the end of an epoch, whether the task ends here."""
        self.stopped = self._epoch_end and self.stopping is not None and self.stopping.should_stop()

    def offer_pause(self) -> None:
        """Let the owner save the state, or end the run: between tasks and in the middle of one."""
        if self.pause is not None and not (self.begun and self.done):
            self.pause(self)

    def end(self) -> None:
        """End the training of a task: keep its losses, let the strategy consolidate."""
        started = time.perf_counter()
        self.record.end_task(self.losses[: self.step], self.online_scores[: self.step])
        if not self.online:
            self.strategy.eval()
            with counted(self.strategy) as passes, seeded(self.seed, "own, end", self.task):
                self.strategy.end_task(self.stream[self.task])
            if late := made_late(self.strategy, self.parts):
                self.update.tell(
                    f"{type(self.strategy).__name__} makes {', '.join(late)} in begin_task or end_task, and cannot be "
                    "resumed: what a checkpoint is loaded into is made in __init__ and grow"
                )
            self.record.passes.add(passes)
            self.strategy.train()
        self.record.seconds["consolidate"] += time.perf_counter() - started

    def close(self) -> None:
        """Leave a task that was trained and evaluated."""
        check_answers(
            self.strategy, self.task + 1, self.record.accuracy[self.task + 1], self.record.loss[self.task + 1]
        )
        self._measure(lambda measure: measure.after_task(self.task, self.strategy, self.stream))
        self.task, self.step, self.begun, self.stopped = self.task + 1, 0, False, False

    def evaluate_row(self, row: int) -> None:
        """Measure all tasks: row 0 before training, row k after task k (1-based)."""
        started = time.perf_counter()
        with seeded(self.seed, "own, evaluation", row):
            found = self.evaluator.row(self.strategy)
        self.record_row(row, *found, time.perf_counter() - started)

    def record_row(self, row: int, accuracy: Array, loss: Array, seconds: float) -> None:
        """Keep a row of the accuracy matrix: accuracy (K,) and loss (K,), and how long it took."""
        self.record.accuracy[row], self.record.loss[row] = accuracy, loss
        self.record.seconds["evaluate"] += seconds
        for tracker in self.trackers:
            tracker.row(row, sum(self.record.task_steps), accuracy, loss)
        if row == 0:
            self._measure(lambda measure: measure.start(self.strategy, self.stream))

    def _measure(self, look: Callable[[Measure], None]) -> None:
        started = time.perf_counter()
        self.strategy.eval()
        with seeded(self.seed, "own, measures", self.task):  # savings train copies, with whatever layers they have
            for measure in self.measures:
                look(measure)
        self.strategy.train()
        self.record.seconds["measure"] += time.perf_counter() - started

    def evaluate_point(self) -> None:
        """Measure a point of the within-task curve."""
        started = time.perf_counter()
        accuracy = self.evaluator.point(self.strategy, self.task)
        self.record_point(accuracy, time.perf_counter() - started)

    def record_point(self, accuracy: Array, seconds: float) -> None:
        """Keep a point of the within-task curve: accuracy (K,), and how long it took."""
        step = sum(self.record.task_steps) + self.step
        self.record.curves.append((step, self.task, accuracy))
        self.record.seconds["evaluate"] += seconds
        for tracker in self.trackers:
            tracker.curve(step, self.task, accuracy)

    def release(self) -> None:
        """Let go of the state, for good; what was measured stays, and so do the facts that `results` asks for."""
        self.strategy.to("meta")
        self.update.release()
        self.scheduler = self.stopping = self._loaded = None
        vars(self).pop("data", None)

    def results(self) -> Results:
        """Return what was measured so far."""
        return self.record.results(self.stream, self.strategy, self.measures)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here, in plain types and tensors."""
        stopping = self.stopping
        return {
            "task": self.task,
            "step": self.step,
            "begun": self.begun,
            "stopped": self.stopped,
            "strategy": {n: _copied(t) for n, t in self.strategy.state_dict().items()},
            "optimizer": self.update.state_dict(),
            "scheduler": {} if self.scheduler is None else self.scheduler.state_dict(),
            "stopping": [float("inf"), 0] if stopping is None else [stopping.best, stopping.waited],
            "losses": self.losses[: self.step].cpu().clone(),
            "online_scores": self.online_scores[: self.step].cpu().clone(),
            "step_passes": {n: [p.forward, p.backward] for n, p in self.step_passes.known.items()},
            "measures": [measure.state_dict() for measure in self.measures],
            **self.record.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the engine must be fresh and of the same configuration.

        The structure is replayed (`Strategy.grow`), then the tensors are loaded. In the middle of a task the rest
        (`begin_task`, data, optimiser) is prepared by `run_task`, which loads the state over it.
        """
        self.task, self.step = int(state["task"]), int(state["step"])
        self.record.load_state_dict(state)
        for measure, saved in zip(self.measures, state["measures"], strict=True):
            measure.load_state_dict(saved)
        self.stopped, between = bool(state["stopped"]), not state["begun"]
        if not self.online:
            for k in range(self.task):
                self.strategy.grow(k)
        if between or self.online:
            self.strategy.load_state(state["strategy"])
            self.update.refresh(self.strategy, reset=False)
            self.update.load_state_dict(state["optimizer"])
        if not between:
            self._loaded = state


def _copied(value: Any) -> Any:
    """Return a copy of what a module saves: a tensor, or the plain types of an extra state."""
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
