"""A population: replicas (seeds, and values of numbers) of a run, trained as one program."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from cl.engine import Engine
from cl.errors import TrainingError, expect, out_of_memory, told
from cl.population.apart import DiffersError, alike
from cl.population.lanes import Lanes
from cl.population.measure import measure
from cl.population.memory import fitting
from cl.population.stack import Stack, numbers, structure
from cl.results import Results

log = logging.getLogger(__name__)
# Where stacking costs more than it saves on a CPU, measured on one thread; ratios to one after another.
FEW = 8  # replicas: 1.2 with four, 1.05 with six, .9 with eight, .8 with twelve (2 x 100 units, batches of 10)
WIDE = 150_000  # parameters: stacked they leave the caches; .8 at 90,000, 1.2 at 200,000, 1.8 at 480,000
LARGE = 12_000_000  # parameters x samples of a step: .8 at 6 million, 1.1 at 23 million
KERNELS = (nn.Conv1d, nn.Conv2d, nn.LSTM)  # stacked they lose torch's own kernels: 1.7 and 1.3 to 2.0


class Population:
    """Trains S engines as one program; every replica ends as its engine would have ended alone.

    Each engine keeps its own seed, stream, strategy, trackers and results. Replicas of equal structure are stacked
    (`torch.func`); others, strategies that are not `vectorizable`, and what is quicker so on a CPU run one after
    another; `notes` says why.
    A replica that fails, in training or by an error of its strategy between tasks, is left in `errors` and does not
    disturb the others; memory that runs out ends them all.

    Args:
        engines: the replicas, fresh or loaded.
        limit: replicas to train at once, or None for as many as fit into memory.
        pause: called with the population after every task; it may save `state_dict()`.
        always: True stacks whatever can be stacked, also where one after another is quicker.
        of: replicas of the run, those included that ended before; default: as many as there are engines. What is
            quicker is judged by it, so that a resumed run computes as the first one did.
        keep: False lets go of the networks and optimisers of replicas that are done while others wait for their memory;
            their results stay.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        limit: int | None = None,
        pause: Callable[["Population"], None] | None = None,
        always: bool = False,
        of: int | None = None,
        keep: bool = True,
    ) -> None:
        expect(len(engines) > 0, "engines", "at least one engine", engines)
        expect(limit is None or limit > 0, "limit", "> 0", limit)
        self.engines, self.limit, self.pause, self.keep = list(engines), limit, pause, keep
        self.always, self.size = always, len(engines) if of is None else of
        self.errors: dict[int, Exception] = {}
        self.notes: list[str] = []
        for engine in self.engines:
            engine.update.tell = self._note

    def run(self) -> list[Results]:
        """Train all replicas and return the results of each; those of a failed one end where it failed."""
        left = list(self.engines)
        while left:
            size = fitting(left) if self.limit is None else self.limit
            if size < len(left):
                size = math.ceil(len(left) / math.ceil(len(left) / size))
                self._note(f"{len(left)} replicas do not fit into memory at once: training {size} at a time")
            self._run(left[:size])
            done, left = left[:size], left[size:]
            for engine in done if left and not self.keep else ():
                engine.release()
        return [e.results() for e in self.engines]

    def _run(self, engines: list[Engine]) -> None:
        for group in self._groups([e for e in engines if not e.started]):
            self._measure(group)
        while present := self._unfinished(engines):
            k = min(e.task for e in present)
            present = self._each([e for e in present if e.task == k], partial(Engine.begin, k=k))
            for group in self._groups(present):
                self._train(group)
            present = self._each(self._unfinished(present), Engine.end)
            for group in self._groups(present):
                self._measure(group)
            for step in (Engine.close, Engine.offer_pause):
                present = self._each(self._sound(present), step)
            if self.pause is not None:
                self.pause(self)

    def _each(self, engines: Sequence[Engine], do: Callable[[Engine], Any]) -> list[Engine]:
        """Do something with one replica after another; return those in which it did not fail."""
        for engine in engines:
            try:
                do(engine)
            except Exception as error:
                self._fail(engine, error)
        return self._sound(engines)

    def _sound(self, engines: Sequence[Engine]) -> list[Engine]:
        failed = [self.engines[i] for i in self.errors]
        return [e for e in engines if e not in failed]

    def _unfinished(self, engines: Sequence[Engine]) -> list[Engine]:
        return [e for e in self._sound(engines) if e.task < len(e.stream)]

    def _groups(self, engines: Sequence[Engine]) -> list[list[Engine]]:
        """Split replicas into groups that can be stacked; replicas that must run alone are groups of one."""
        groups: dict[Any, list[Engine]] = {}
        for engine in engines:
            strategy = engine.strategy
            reason, level = None if strategy.vectorizable is True else strategy.vectorizable, logging.WARNING
            if reason is None and not self.always:
                reason, level = self._quicker_apart(engine), logging.INFO
            if reason is not None:
                self._note(f"{type(strategy).__name__} runs replica by replica: {reason}", level)
                groups[id(engine)] = [engine]
                continue
            update = engine.update
            key = (type(strategy), structure(strategy), engine.options, update.autocast, engine.evaluator.options)
            groups.setdefault((*key, engine.online, len(engine.stream)), []).append(engine)
        return list(groups.values())

    def _quicker_apart(self, engine: Engine) -> str | None:
        """Return why a replica is trained sooner where it is not stacked with others, or None."""
        if engine.device.type != "cpu":
            return None
        if any(isinstance(m, KERNELS) for m in engine.strategy.modules()):
            return "convolutions and LSTMs are quicker so on a CPU"
        if self.size < FEW:
            return f"fewer than {FEW} are quicker so on a CPU"
        parameters = sum(p.numel() for p in engine.strategy.learner.parameters())
        if parameters > WIDE:
            return "networks as large as this are quicker so on a CPU"
        if parameters * engine.options.batch_size > LARGE:
            return "steps as large as these are quicker so on a CPU"
        return None

    def _train(self, group: list[Engine]) -> None:
        if len(group) == 1:
            self._each(group, Engine.train)
            return
        lanes = Lanes(group)
        try:
            lanes.rehearse()
        except Exception as error:  # whatever a strategy's code raises under vmap; alone it shows its own errors
            for part in self._smaller(group, error):
                self._train(part)
            return
        try:
            lanes.train()
        except Exception as error:  # of a step of them all
            lanes.failed += [(engine, error) for engine in lanes.engines]
        for engine, failure in lanes.failed:
            self._fail(engine, failure)

    def _smaller(self, group: list[Engine], error: Exception) -> list[list[Engine]]:
        """Return what to try where a group cannot be stacked: replicas with equal attributes, then each alone."""
        name = type(group[0].strategy).__name__
        if isinstance(error, DiffersError):
            equal = alike([e.strategy for e in group], lambda place: place[1] == "info")
            if len(equal) > 1:
                self._note(f"{name}: replicas with different attributes run apart: {_line(error)}")
                return [[group[i] for i in part] for part in equal]
        by_number: dict[Any, list[Engine]] = {}
        for engine in group:
            by_number.setdefault(tuple(sorted(numbers(engine.strategy).items())), []).append(engine)
        if len(by_number) > 1:
            self._note(f"{name}: replicas with different numbers run apart: {_line(error)}")
            return list(by_number.values())
        self._note(f"{name} runs replica by replica: {_line(error)}")
        return [[engine] for engine in group]

    def _measure(self, group: list[Engine]) -> None:
        if len(group) > 1:
            try:
                measure(group, Stack([e.strategy for e in group]))
            except Exception as error:  # as in `_train`
                self._note(f"{type(group[0].strategy).__name__} is measured replica by replica: {_line(error)}")
            else:
                return
        self._each(group, lambda engine: measure([engine], None))

    def _fail(self, engine: Engine, error: Exception) -> None:
        if out_of_memory(error):
            raise error
        index = self.engines.index(engine)
        self.errors[index] = error
        log.warning("replica %d (seed %d) failed: %s", index, engine.seed, told(error))

    def _note(self, text: str, level: int = logging.WARNING) -> None:
        if text not in self.notes:
            self.notes.append(text)
            log.log(level, text)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here: the state of every replica, and which have failed."""
        return {
            "engines": [e.state_dict() for e in self.engines],
            "errors": {i: told(error) for i, error in self.errors.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the engines must be fresh and of the same configuration."""
        for engine, own in zip(self.engines, state["engines"], strict=True):
            engine.load_state_dict(own)
        self.errors = {int(i): TrainingError(text) for i, text in state["errors"].items()}


def _line(error: Exception) -> str:
    """Return the first line of an error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
