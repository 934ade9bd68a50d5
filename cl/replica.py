"""One seed's lane of a run: from its configuration to its folder."""

import dataclasses
import json
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cl import checkpoint
from cl.assembly import build_engine, build_strategy, build_stream
from cl.build import Config, construct, locate
from cl.costs import peak_memory
from cl.distributed import World, check, updater
from cl.engine import BEGINNING, Engine, Place
from cl.errors import DataError, LetheError, told
from cl.folder import RunFolder, code_hash, config_hash, own_code_hash, read_status
from cl.report.samples import write_samples
from cl.results import Results
from cl.settings import Settings
from cl.signals import Request
from cl.streams import TaskStream
from cl.streams.base import Stream
from cl.trackers.base import RunFacts
from cl.trackers.guard import Guarded
from cl.unsaved import Attributes, attributes, lost

TRACEBACK = "traceback.txt"
log = logging.getLogger(__name__)


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


def folder_of(config: Mapping[str, Any], settings: Settings) -> Path:
    """Return the run folder that follows from a configuration."""
    choices = config["choices"]
    scenario = config["stream"].get("scenario") or "stream"
    name = settings.name or f"{choices['stream']}-{scenario}-{choices['strategy']}"
    group = settings.group or choices["stream"]
    return Path(settings.output).expanduser() / group / f"{name}-seed{settings.seed}-{config_hash(config)}"


def folders_of(config: Mapping[str, Any]) -> list[Path]:
    """Return the run folders of all replicas of a configuration."""
    settings = Settings.of(config)
    return [folder_of(config, dataclasses.replace(settings, seed=seed)) for seed in settings.seeds]


class Saves:
    """Lets replicas that reach a place one after another agree whether to save there: the first one decides."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._answer = False

    def agree(self, place: Place, wanted: bool) -> bool:
        """Return what the replica that was first at `place` wanted."""
        if place != self._place:
            self._place, self._answer = place, wanted
        return self._answer


class Replica:
    """One seed's lane of a run: its stream, strategy, engine, trackers and folder.

    Args:
        config: resolved configuration of one replica.
        device: where to compute.
        request: set when somebody asks the run to end.
        path: run folder, or None to derive it.
        world: the processes that share the run, or None; only the first one reads and writes the folder.
        saves: shared with the replicas that are trained as one program with this one.

    Attributes:
        outcome: how it ended; None while it has not.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        request: Request,
        path: Path | None = None,
        world: World | None = None,
        saves: Saves | None = None,
    ) -> None:
        self.config, self.settings, self.device, self.request = config, Settings.of(config), device, request
        self.saves = saves or Saves()
        self.world, self.leads = world, world is None or world.rank == 0
        self.path = path if path is not None else folder_of(config, self.settings)
        self.saved_at, self.saved_step = time.monotonic(), 0
        self.folder: RunFolder | None = None
        self.outcome = self._before() if self.leads else None
        if world is not None:
            self.outcome = world.agree(self.outcome)

    def _before(self) -> Outcome | None:
        """Return the outcome of an earlier run that is not to be repeated, or None."""
        status, resume = read_status(self.path).get("status"), self.settings.resume
        try:
            if resume != "never" and status == "complete":
                self._warn_of_other_code()
                return Outcome(self.path, "skipped", "complete before", Results.load(self.path))
            if resume == "auto" and status == "failed":
                message = f"{read_status(self.path).get('message')} (before; resume=retry runs it again)"
                return Outcome(self.path, "failed", message, Results.load(self.path))
        except (DataError, FileNotFoundError) as error:
            log.warning("%s; measuring again", " ".join(str(error).split()))
        return None

    def _warn_of_other_code(self) -> None:
        """Say so where a run that is not to be repeated was made by another version of the user's own classes."""
        try:
            before = json.loads((self.path / "environment.json").read_text()).get("own_code")
            kinds = [locate(self.config[part]["_target_"], part) for part in ("strategy", "stream", "learner")]
        except (OSError, ValueError, KeyError):  # nothing to compare with, or a class that is no longer there
            return
        if before not in (None, own_code_hash(*(kind for kind in kinds if isinstance(kind, type)))):
            log.warning("%s was measured by another version of your classes; resume=never measures again", self.path)

    def build(self, like: "Replica | None" = None) -> bool:
        """Build everything and take the folder; False if nothing is to do.

        Args:
            like: a replica that is built already; samples are shared with it where the streams differ by seed alone.
        """
        if self.outcome is not None:
            return False
        self.started = time.time()
        alike = like is not None and all(like.config[part] == self.config[part] for part in ("stream", "data"))
        shared = like.engine.stream if like is not None and alike else None
        if isinstance(shared, TaskStream):
            stream: Stream = shared.with_seed(self.settings.seed)
        else:
            stream = build_stream(self.config, self.settings, self.device)
        strategy = build_strategy(self.config, stream, self.device)
        told = construct(self.config["tracker"], "tracker").values() if self.leads else ()
        self.trackers = [Guarded(t) for t in told if t is not None]
        if self.world is not None:
            check(strategy)
        self.engine: Engine = build_engine(self.config, stream, strategy, self.trackers, updater(self.world))
        self.engine.pause = self.pause
        self.identity = {
            "configuration": config_hash(self.config),
            "seed": str(self.settings.seed),
            "code": code_hash(type(strategy), type(stream), type(strategy.learner)),
            "stream": stream.fingerprint(),
        }
        self.own_code = own_code_hash(type(strategy), type(stream), type(strategy.learner))
        self.plain: Attributes | None = attributes(strategy)
        if self.leads:
            self.folder = RunFolder(self.path)
        return True

    def prepare(self, beside: Sequence["Replica"] = (), level: Place | None = None) -> None:
        """Load what an earlier process saved and start the trackers.

        Args:
            beside: the replicas of the program that were prepared before.
            level: where to go on from, one of `restarts`; None: from the last that was saved.
        """
        self._resume_or_clear(level)
        stream = self.engine.stream
        if self.folder is not None:
            self.folder.start(self.config, self.identity["stream"], self.device, self.started, self.own_code)
            write_samples(stream, self.path)
        facts = RunFacts(
            name=self.path.name,
            group=self.settings.group or self.config["choices"]["stream"],
            folder=self.path,
            config=self.config,
            info=stream.info,
            tags=tuple(self.settings.tags),
            step=self.engine.total_steps - self.engine.step,
            language=stream.language,
        )
        spoken_for = {type(t.tracker) for replica in beside for t in replica.trackers}
        for tracker in self.trackers:
            tracker.start(dataclasses.replace(facts, leads=type(tracker.tracker) not in spoken_for))

    def restarts(self) -> set[Place]:
        """Return where the replica can go on from; the beginning is one if no more than one checkpoint is lost."""
        if not self._resumes:
            return {BEGINNING}
        places = {place_of(state) for state in checkpoint.whole(self.path, self.identity)}
        ended = read_status(self.path).get("status") == "complete"
        return places if ended or (self.path / checkpoint.PREVIOUS).exists() else places | {BEGINNING}

    def _resume_or_clear(self, level: Place | None) -> None:
        state = self._saved(level) if self.leads else None
        if self.world is not None:
            state = self.world.agree(state)
        if state is not None:
            self.engine.load_state_dict(state)
            self.saved_step = self.engine.total_steps
        elif self.folder is not None:
            self.folder.clear()

    @property
    def _resumes(self) -> bool:
        """Whether the replica goes on from what an earlier process saved."""
        failed = read_status(self.path).get("status") == "failed"
        return self.settings.resume != "never" and not failed and checkpoint.exists(self.path)

    def _saved(self, level: Place | None) -> dict[str, Any] | None:
        """Return the state that an earlier process saved and this one is to go on from, if there is one."""
        if not self._resumes or level == BEGINNING:
            return None
        state, warnings = checkpoint.load(self.path, self.identity)
        for warning in warnings:
            log.warning("%s; using the one before", warning)
        if state is not None and level is not None and place_of(state) != level:
            state = checkpoint.read(self.path / checkpoint.PREVIOUS, self.identity)
        return state

    def pause(self, engine: Engine) -> None:
        """Save the run if it is time, or if somebody asked it to end (which ends it)."""
        options = self.settings.checkpoint
        minutes = (time.monotonic() - self.saved_at) / 60
        wanted = (
            engine.step == 0
            or self.request.number is not None
            or (options.minutes is not None and minutes >= options.minutes)
            or (options.steps is not None and engine.total_steps - self.saved_step >= options.steps)
        )
        if not self.saves.agree((engine.task, engine.step), wanted):
            return
        if self.leads:
            self._warn_of_losses()
            try:
                checkpoint.save(self.path, engine.state_dict(), self.identity)
            except OSError as error:  # training is worth more than its checkpoint
                log.warning("no checkpoint of %s at step %d: %s", self.path, engine.total_steps, error)
            self.saved_at, self.saved_step = time.monotonic(), engine.total_steps
        self.request.answer(id(self))

    def _warn_of_losses(self) -> None:
        """Say, once, which changed attributes of the strategy a resumed run would not have."""
        strategy = self.engine.strategy
        before, self.plain = self.plain, None
        names = [] if before is None else lost(strategy, before)
        if names:
            log.warning(
                "%s changes %s, which no checkpoint holds: a resumed run would go on without; make each a buffer "
                "(register_buffer), or name it in `rebuilt` if grow, begin_task or training_data set it anew",
                *(type(strategy).__name__, ", ".join(names)),
            )

    def finish(self, status: str, message: str = "", error: Exception | None = None) -> None:
        """Write the results and how the replica ended: of what `error`, and of a defect the place in the code."""
        place = ""
        if error is not None:
            message = told(error)
        if error is not None and not isinstance(error, LetheError):
            place = "".join(traceback.format_exception(error))
            message += f" (traceback in {self.path / TRACEBACK})"
        if status == "interrupted" and self.engine.task == len(self.engine.stream):
            status, message = "complete", ""
        results = self.engine.results()
        # Replicas trained as one program differ from each alone by the rounding of sums.
        results.costs["replicas_together"] = self.request.expected
        results.costs |= peak_memory(self.device)
        self.outcome = Outcome(self.path, status, message, results)
        if self.folder is None:
            return
        try:
            results.save(self.path)
            if "forgetting_events" in results.measures:
                from cl.report.forgotten import write_forgotten

                write_forgotten(self.engine.stream, results, self.path)
            if place:
                self.folder.write(TRACEBACK, place)
            self.folder.status(status, message)
            if status == "complete":
                (self.path / checkpoint.PREVIOUS).unlink(missing_ok=True)
        except OSError as error:
            raise LetheError(
                f"Expected {self.path} to take the results, got {error}; resume=auto goes on from the last checkpoint"
            ) from error
        finally:
            for tracker in self.trackers:
                tracker.finish(results, status)

    def close(self) -> None:
        """Let others write the folder."""
        if self.folder is not None:
            self.folder.close()


def place_of(state: Mapping[str, Any]) -> Place:
    """Return where an engine was when `Engine.state_dict` returned `state`."""
    return int(state["task"]), int(state["step"])
