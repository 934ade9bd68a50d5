"""Hyper-parameters chosen honestly: on validation data, other seeds or the first tasks; test data is out of reach.

The protocol is that of Chaudhry et al. (2019, Efficient lifelong learning with A-GEM, section 4) generalised: a search
on a part of what a study may look at, its budget counted, then the final seeds with the values found.
"""

import dataclasses
import inspect
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cl.apart import settled
from cl.assembly import build_engine, build_strategy, build_stream
from cl.build import Config, construct, locate
from cl.device import find, guarantees
from cl.engine import Engine
from cl.errors import ConfigError, LetheError, TrainingError, expect, out_of_memory
from cl.results import ACCURACY
from cl.settings import Settings
from cl.streams.base import Stream, Task
from cl.streams.data import Data
from cl.workers import Workers

Setting = tuple[tuple[str, ...], Config]  # words, resolved configuration


@dataclass(frozen=True)
class Protocol:
    """What tuning may look at.

    Attributes:
        seeds: root seeds of the trials; others than those of the final runs draw other streams, too.
        validation: held out of the training data: a fraction in (0, 1) or a number of samples a task.
        tasks: only the first tasks, or None for all.
    """

    seeds: tuple[int, ...]
    validation: float | int = 0.1
    tasks: int | None = None

    def __post_init__(self) -> None:
        expect(len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds), "seeds", "different seeds", self.seeds)
        expect(self.validation > 0, "validation", "> 0", self.validation)
        expect(self.tasks is None or self.tasks > 0, "tasks", "> 0", self.tasks)


class ValidationStream(Stream):
    """The first tasks of a stream, with the validation split where the test split would be.

    Args:
        stream: a stream whose tasks have validation splits.
        tasks: how many tasks, or None for all.
    """

    def __init__(self, stream: Stream, tasks: int | None = None) -> None:
        count = len(stream) if tasks is None else tasks
        expect(count <= len(stream), "tasks", f"<= {len(stream)}, the tasks of the stream", count)
        self._stream = stream
        self.info = dataclasses.replace(stream.info, n_tasks=count, task_classes=stream.info.task_classes[:count])
        self.class_names, self.language = stream.class_names[:count], stream.language

    def __getitem__(self, k: int) -> Task:
        """Return task k."""
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        return self._stream[k % len(self)]

    def test(self, k: int) -> Data:
        """Return the validation split of task k."""
        found = self[k].validation
        expect(found is not None, "stream.validation", "> 0 for tuning", None)
        assert found is not None
        return found

    def fingerprint(self) -> str:
        """Return the hash of the stream that is tuned on."""
        return self._stream.fingerprint()


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        words: the setting, as overrides.
        scores: `Results.score` on validation data after the last task, for each seed; NaN where training failed.
        steps: optimisation steps of all seeds.
        seconds: training and consolidation of all seeds.
        message: why it failed; "" if it did not.
        kind: what the scores are, `Results.kind`.
    """

    words: tuple[str, ...]
    scores: tuple[float, ...]
    steps: int
    seconds: float
    message: str = ""
    kind: str = ACCURACY

    @property
    def trains(self) -> bool:
        """Whether all seeds have a score."""
        return self.score > -math.inf

    @property
    def score(self) -> float:
        """The mean over seeds; -inf if a seed failed."""
        mean = float(np.mean(self.scores))
        return -math.inf if math.isnan(mean) else mean

    @classmethod
    def failed(cls, words: tuple[str, ...], protocol: Protocol, error: Exception) -> "Trial":
        """Return what is known of a setting that could not be tried."""
        return cls(words, (math.nan,) * len(protocol.seeds), 0, 0.0, " ".join(str(error).split()))


def carry_out(settings: Sequence[Setting], protocol: Protocol, pool: Workers) -> Iterator[Trial]:
    """Try some settings, and yield what became of each in their order.

    On a CPU they are tried side by side, in processes of one thread, on an accelerator as one population.

    Args:
        settings: (words, resolved configuration) of each.
        protocol: see `Protocol`.
        pool: for those on a CPU.
    """
    if not settings:
        return
    if find(str(settings[0][1]["device"])).type != "cpu":
        yield from attempt(settings, protocol)
        return
    # One thread, also where nothing runs beside: what is found does not depend on the number of cores.
    parts = [[(words, {**config, "threads": config["threads"] or 1})] for words, config in settings]
    for trials in pool.map(partial(_one, protocol=protocol), parts):
        yield from trials


def _one(part: list[Setting], protocol: Protocol) -> list[Trial]:
    """Try one setting in a worker; if its process is killed, the setting failed and the search goes on."""
    try:
        return settled(lambda: attempt(part, protocol))
    except TrainingError as error:
        return [Trial.failed(part[0][0], protocol, error)]


def attempt(settings: Sequence[Setting], protocol: Protocol) -> list[Trial]:
    """Try some settings in this process; see `carry_out`."""
    first = settings[0][1]
    device = find(str(first["device"]))
    engines: dict[int, list[Engine]] = {}
    refused: dict[int, Exception] = {}
    with guarantees(device, first["threads"], first["deterministic"]):
        for i, (_, config) in enumerate(settings):
            try:
                engines[i] = _engines(config, protocol)
            except LetheError as error:
                refused[i] = error
        flat = [engine for own in engines.values() for engine in own]
        errors = _train(flat, together=device.type != "cpu" and len(flat) > 1)
    told = {id(flat[i]): str(error) for i, error in errors.items()}
    return [
        Trial.failed(words, protocol, refused[i]) if i in refused else _trial(words, engines[i], told)
        for i, (words, _) in enumerate(settings)
    ]


def rehearse(configs: Iterable[Config], protocol: Protocol, seed: int) -> None:
    """Build the final run of the first setting that can be tried, so that no search ends in one that is impossible.

    Nothing is trained or measured. Trials leave out trackers, measures and the within-task curve.

    Args:
        configs: settings, resolved.
        protocol: see `Protocol`.
        seed: a final one.

    Raises:
        ConfigError: that run is not possible.
    """
    for config in configs:
        try:
            _engines(config, protocol)
        except LetheError:  # the search says why
            continue
        own = {**config, "seed": seed}
        settings = Settings.of(own)
        device = find(settings.device)
        stream = build_stream(own, settings, device)
        build_engine(own, stream, build_strategy(own, stream, device))
        construct(own["tracker"], "tracker")
        return


def _engines(config: Config, protocol: Protocol) -> list[Engine]:
    """Build an engine a seed.

    Raises:
        LetheError: the setting is impossible, or too large for the memory.
    """
    try:
        return [_engine(config, seed, protocol) for seed in protocol.seeds]
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(f"out of memory: {error}") from error


def _train(engines: Sequence[Engine], together: bool) -> dict[int, TrainingError]:
    """Train engines; returns the errors of those that failed, by position."""
    if together:
        from cl.population import Population

        population = Population(engines)
        population.run()
        defects = [error for error in population.errors.values() if not isinstance(error, TrainingError)]
        if defects:  # of the code, not of a setting
            raise defects[0]
        return {i: error for i, error in population.errors.items() if isinstance(error, TrainingError)}
    return {i: error for i, engine in enumerate(engines) if (error := _alone(engine)) is not None}


def _engine(config: Config, seed: int, protocol: Protocol) -> Engine:
    """Build an engine that measures on validation data after the tasks, and on nothing else."""
    make = locate(config["stream"].get("_target_"), "stream")
    asked = inspect.signature(make).parameters
    takes = "validation" in asked or any(p.kind is p.VAR_KEYWORD for p in asked.values())
    rule = "that takes the argument `validation` for tuning: what its tasks hold out as `Task.validation`"
    expect(takes, "stream", rule, getattr(make, "__name__", make))
    own = {
        **config,
        "seed": seed,
        "stream": {**config["stream"], "validation": protocol.validation},
        "evaluation": {**config["evaluation"], "every": None},
        "measures": {},
    }
    settings = Settings.of(own)
    device = find(settings.device)
    stream = ValidationStream(build_stream(own, settings, device), protocol.tasks)
    return build_engine(own, stream, build_strategy(own, stream, device))


def _alone(engine: Engine) -> TrainingError | None:
    started = time.perf_counter()
    try:
        engine.run()
    except TrainingError as error:
        engine.record.seconds["train"] += time.perf_counter() - started
        return error
    return None


def _trial(words: tuple[str, ...], engines: Sequence[Engine], told: Mapping[int, str]) -> Trial:
    found = [e.results() for e in engines]
    return Trial(
        words,
        tuple(float(results.score[0]) for results in found),
        sum(e.total_steps for e in engines),
        sum(e.record.seconds["train"] + e.record.seconds["consolidate"] for e in engines),
        next((told[id(e)] for e in engines if id(e) in told), ""),
        found[0].kind,
    )


def report(trials: Sequence[Trial], protocol: Protocol) -> dict[str, Any]:
    """Return everything about a search as plain types: the protocol, the trials, the best one, the budget.

    Raises:
        ConfigError: no trial succeeded.
    """
    best = max(trials, key=lambda t: t.score)
    if not best.trains:
        reason = next((f"{' '.join(t.words)}: {t.message}" for t in trials if t.message), "no score is finite")
        raise ConfigError(f"Expected at least one setting that trains, got none ({reason})")
    return {
        "protocol": dataclasses.asdict(protocol),
        "best": {"words": list(best.words), "score": best.score, "kind": best.kind},
        "budget": {
            "settings": len(trials),
            "failed": sum(not t.trains for t in trials),
            "runs": sum(t.steps > 0 for t in trials) * len(protocol.seeds),
            "steps": sum(t.steps for t in trials),
            "seconds": sum(t.seconds for t in trials),
        },
        "trials": [
            {**dataclasses.asdict(t), "scores": [s if math.isfinite(s) else None for s in t.scores]} for t in trials
        ],
    }
