"""One run from its configuration to its folder: build, train, save, resume, and say how it ended."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl import checkpoint
from cl.build import Config, call, check_fields, construct, locate
from cl.device import find, guarantees
from cl.engine import Engine
from cl.errors import ConfigError, LetheError, TrainingError, expect
from cl.evaluator import EvaluationOptions
from cl.folder import RunFolder, code_hash, config_hash, read_status
from cl.results import Results
from cl.seeding import seeded
from cl.settings import Settings
from cl.signals import Interrupted, Request, listening
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.trackers.base import RunFacts, Tracker
from cl.trackers.guard import Guarded
from cl.training import TrainingOptions


@dataclass(frozen=True)
class Outcome:
    """How one replica ended.

    Attributes:
        path: its run folder.
        status: ``complete``, ``failed``, ``interrupted``, or ``skipped`` (it was complete before).
        message: why, where it is not complete.
        results: what was measured.
    """

    path: Path
    status: str
    message: str
    results: Results


def run(config: Config, path: Path | None = None) -> list[Outcome]:
    """Carry out a run.

    Args:
        config: a resolved configuration, plain types, as written into the run folder.
        path: the run folder, where it is not to follow from the configuration (one replica only).

    Returns:
        one outcome a replica.

    Raises:
        LetheError: the configuration, the data or the folder is not usable; nothing was trained.
        Interrupted: a signal asked the run to end; its state is saved.
    """
    settings = Settings.of(config)
    device = find(settings.device)
    with guarantees(device, settings.threads, settings.deterministic), listening() as request:
        return [Replica(config, replace(settings, seed=s, replicas=1), device, request, path).run()
                for s in settings.seeds]


def build_stream(config: Config, settings: Settings, device: torch.device) -> Stream:
    """Build the stream of a configuration."""
    root = str(Path(settings.data.root).expanduser())
    stream = construct(
        config["stream"], "stream", seed=settings.seed, root=root, download=settings.data.download, device=device
    )
    if not isinstance(stream, Stream):
        found = type(stream).__name__
        raise ConfigError(f"Expected `stream._target_` a subclass of cl.streams.base.Stream, got {found}")
    return stream


def build_strategy(config: Config, stream: Stream, device: torch.device) -> Strategy:
    """Build the learner and the strategy around it, initialised by the stream's seed, on the device."""
    info = stream.info
    target = locate(config["strategy"].get("_target_"), "strategy._target_")
    if not (isinstance(target, type) and issubclass(target, Strategy)):
        raise ConfigError(f"Expected `strategy._target_` a subclass of cl.strategy.Strategy, got {target!r}")
    with seeded(info.seed, "learner"):
        learner = construct(config["learner"], "learner", input_shape=info.input_shape, n_classes=info.n_classes)
    with seeded(info.seed, "strategy"):
        strategy: Strategy = construct(config["strategy"], "strategy", learner=learner, info=info)
    return strategy.to(device)


def build_engine(
    config: Config, stream: Stream, strategy: Strategy, trackers: Sequence[Tracker] = ()
) -> Engine:
    """Build the engine of a configuration around a strategy and its stream."""
    options: dict[str, Any] = {}
    for name, kind in (("training", TrainingOptions), ("evaluation", EvaluationOptions)):
        check_fields(kind, config[name], name)
        options[name] = kind(**config[name])
    if options["training"].patience is not None:
        expect(stream[0].validation is not None, "stream.validation", "> 0 when training.patience is given", 0)
    optimizer = construct(config["optimizer"], "optimizer")
    scheduler = construct(config["scheduler"], "scheduler") if config["scheduler"].get("_target_") else None
    # One trial on a parameter that is thrown away: an impossible number is found before any training.
    trial = call(optimizer, "optimizer", params=[torch.nn.Parameter(torch.zeros(1, device=strategy.active.device))])
    if scheduler is not None:
        call(scheduler, "scheduler", optimizer=trial)
    return Engine(
        strategy, stream, optimizer, options["training"], options["evaluation"],
        make_scheduler=scheduler, precision=config["precision"], trackers=trackers,
        measures=list(construct(config.get("measures", {}), "measures").values()),
    )


def folder_of(config: Mapping[str, Any], settings: Settings) -> Path:
    """Return the run folder that follows from a configuration."""
    choices = config["choices"]
    scenario = config["stream"].get("scenario") or "stream"
    name = settings.name or f"{choices['stream']}-{scenario}-{choices['strategy']}"
    group = settings.group or choices["stream"]
    return Path(settings.output).expanduser() / group / f"{name}-seed{settings.seed}-{config_hash(config)}"


class Replica:
    """One seed's lane of a run: its stream, strategy, engine, trackers and folder.

    Args:
        config: resolved configuration.
        settings: read from it, for one seed.
        device: where to compute.
        request: set when somebody asks the run to end.
        path: run folder, or None to derive it.
    """

    def __init__(
        self, config: Config, settings: Settings, device: torch.device, request: Request, path: Path | None = None
    ) -> None:
        self.config = {**config, "seed": settings.seed, "replicas": 1}
        self.settings, self.device, self.request = settings, device, request
        self.path = path if path is not None else folder_of(self.config, settings)
        self.saved_at, self.saved_step = time.monotonic(), 0
        self.warnings: list[str] = []

    def run(self) -> Outcome:
        """Train the replica, or go on where it was cut, or skip it if it is complete; see `run`."""
        before = read_status(self.path)
        if self.settings.resume != "never" and before.get("status") == "complete":
            return Outcome(self.path, "skipped", "complete before", Results.load(self.path))
        if self.settings.resume == "auto" and before.get("status") == "failed":
            return Outcome(self.path, "failed", f"before: {before.get('message')}", Results.load(self.path))
        started = time.time()
        stream = build_stream(self.config, self.settings, self.device)
        strategy = build_strategy(self.config, stream, self.device)
        trackers = [Guarded(t) for t in construct(self.config["tracker"], "tracker").values() if t is not None]
        self.engine = build_engine(self.config, stream, strategy, trackers)
        self.engine.pause = self.pause
        fingerprint = stream.fingerprint()
        self.identity = {
            "configuration": config_hash(self.config),
            "seed": str(self.settings.seed),
            "code": code_hash(type(strategy), type(stream), type(strategy.learner)),
            "stream": fingerprint,
        }
        self.folder = RunFolder(self.path)
        try:
            self._resume_or_clear()
            self.folder.start(self.config, fingerprint, self.device, started)
            facts = RunFacts(
                name=self.path.name, group=self.settings.group or self.config["choices"]["stream"], folder=self.path,
                config=self.config, info=stream.info, tags=tuple(self.settings.tags),
                step=self.engine.total_steps - self.engine.step,
            )
            for tracker in trackers:
                tracker.start(facts)
            return self._train(trackers)
        finally:
            self.folder.close()

    def _resume_or_clear(self) -> None:
        failed = read_status(self.path).get("status") == "failed"
        if self.settings.resume != "never" and not failed and checkpoint.exists(self.path):
            state, self.warnings = checkpoint.load(self.path, self.identity)
            if state is not None:
                self.engine.load_state_dict(state)
                self.saved_step = self.engine.total_steps
                return
        self.folder.clear()

    def _train(self, trackers: Sequence[Tracker]) -> Outcome:
        try:
            self.engine.run()
        except Interrupted as stop:
            self._finish(trackers, "interrupted", str(stop))
            raise
        except TrainingError as error:
            return self._finish(trackers, "failed", str(error))
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                self._finish(trackers, "failed", f"{type(error).__name__}: {error}")
                raise
            return self._finish(trackers, "failed", f"out of memory at task {self.engine.task}: {error}; "
                                "try a smaller training.batch_size, evaluation.batch_size or replicas")
        except BaseException as error:
            self._finish(trackers, "failed", f"{type(error).__name__}: {error}")
            raise
        outcome = self._finish(trackers, "complete", "")
        (self.path / checkpoint.PREVIOUS).unlink(missing_ok=True)
        return outcome

    def _finish(self, trackers: Sequence[Tracker], status: str, message: str) -> Outcome:
        results = self.engine.results()
        try:
            results.save(self.path)
            self.folder.status(status, message)
        except OSError as error:
            raise LetheError(f"Expected {self.path} to take the results, got {error}") from error
        finally:
            for tracker in trackers:
                tracker.finish(results, status)
        return Outcome(self.path, status, message, results)

    def pause(self, engine: Engine) -> None:
        """Save the run if it is time, or if somebody asked it to end (then raise `Interrupted`)."""
        options = self.settings.checkpoint
        minutes = (time.monotonic() - self.saved_at) / 60
        due = (
            engine.step == 0
            or self.request.number is not None
            or (options.minutes is not None and minutes >= options.minutes)
            or (options.steps is not None and engine.total_steps - self.saved_step >= options.steps)
        )
        if due:
            try:
                checkpoint.save(self.path, engine.state_dict(), self.identity)
                self.saved_at, self.saved_step = time.monotonic(), engine.total_steps
            except OSError as error:  # training is worth more than its checkpoint
                self.warnings.append(f"no checkpoint at step {engine.total_steps}: {error}")
        self.request.check()


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)


def average(outcomes: Sequence[Outcome]) -> float:
    """Return the mean over replicas of the final average accuracy; NaN where a replica failed."""
    values = [np.nan if o.status == "failed" else o.results.accuracy[:, -1].mean() for o in outcomes]
    return float(np.mean(values))
