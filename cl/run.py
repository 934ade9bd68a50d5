"""Runs from their configurations to their folders: build, train, save, resume, and say how they ended."""

import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from cl.build import Config
from cl.costs import watch_memory
from cl.device import find, guarantees
from cl.distributed import join, launched
from cl.engine import Engine, Place
from cl.errors import LetheError, TrainingError, expect, out_of_memory, told
from cl.files import UNWRITABLE
from cl.replica import Outcome, Replica, Saves
from cl.settings import Settings
from cl.signals import Interrupted, listening

log = logging.getLogger(__name__)


def run(config: Config, path: Path | None = None) -> list[Outcome]:
    """Carry out a run; several replicas are trained as one program.

    Args:
        config: a resolved configuration, plain types, as written into the run folder.
        path: the run folder, where it is not to follow from the configuration (one replica only).

    Returns:
        one outcome a replica.

    Raises:
        LetheError: the configuration, the data or the folder is not usable; nothing was trained.
        Interrupted: a signal asked the run to end; its state is saved.
    """
    (ended,) = run_together([config], path)
    if isinstance(ended, Exception):
        raise ended
    return ended


def run_together(configs: Sequence[Config], path: Path | None = None) -> list[list[Outcome] | Exception]:
    """Carry out runs on one device, as one program where they can be; each replica has its own folder.

    Args:
        configs: resolved configurations, of one device, number of threads and determinism.
        path: see `run`.

    Returns:
        for each configuration what `run` returns, or the exception with which it was refused before any training.
    """
    refused: dict[int, Exception] = {}
    settings: dict[int, Settings] = {}
    for i, config in enumerate(configs):
        with _kept(refused, i):
            settings[i] = Settings.of(config)
    if not settings:
        return list(refused.values())
    first = next(iter(settings.values()))
    device = find(first.device)
    world = None
    if launched():
        seeds = [seed for own in settings.values() for seed in own.seeds]
        expect(len(seeds) == 1, "replicas", "1 under torchrun, which spreads one run over processes", len(seeds))
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device.type == "cuda" else device
        world = join(device.type)
    watch_memory(device)
    with guarantees(device, first.threads, first.deterministic), listening() as request:
        saves = Saves()
        runs: dict[int, list[Replica]] = {i: [] for i in settings}
        built: list[Replica] = []
        prepared: list[Replica] = []

        def build(i: int) -> None:
            alone = [{**configs[i], "seed": seed, "replicas": 1} for seed in settings[i].seeds]
            runs[i] += [Replica(config, device, request, path, world, saves) for config in alone]
            for replica in runs[i]:
                with _named(replica.path):
                    if replica.build(like=built[0] if built else None):
                        built.append(replica)

        def prepare(i: int) -> None:
            for replica in _unfinished({i: runs[i]}):
                with _named(replica.path):
                    replica.prepare(prepared, level)
                prepared.append(replica)

        try:
            _each(build, runs, refused)
            level = _level(_unfinished(runs))
            _each(prepare, runs, refused)
            training = _unfinished(runs)
            request.expected = len(training)
            if training:
                _train(training, sum(map(len, runs.values())))
        finally:
            _close(runs.values())
    ended = {i: [r.outcome for r in replicas if r.outcome is not None] for i, replicas in runs.items()}
    return [refused[i] if i in refused else ended[i] for i in range(len(configs))]


def _each(step: Callable[[int], None], runs: dict[int, list[Replica]], refused: dict[int, Exception]) -> None:
    """Take a step of every run; one that goes wrong is moved to `refused`, so that the others go on."""
    for i in list(runs):
        with _kept(refused, i):
            step(i)
        if i in refused:
            _close([runs.pop(i)])


@contextlib.contextmanager
def _kept(errors: dict[int, Exception], i: int) -> Iterator[None]:
    """Keep what goes wrong in the block as the error of configuration `i`."""
    try:
        yield
    except Exception as error:
        errors[i] = error


def _unfinished(runs: Mapping[int, Sequence[Replica]]) -> list[Replica]:
    return [replica for replicas in runs.values() for replica in replicas if replica.outcome is None]


def _close(runs: Iterable[Sequence[Replica]]) -> None:
    for replica in itertools.chain(*runs):
        replica.close()


def _level(replicas: Sequence[Replica]) -> Place | None:
    """Return the last place from which all replicas can go on, or None where there is none.

    Replicas save one after another. A process that is killed in between leaves some of them one checkpoint ahead; were
    they to go on from there, the others would train without them, in sums that are rounded otherwise.
    """
    if len(replicas) < 2:
        return None
    with _named(replicas[0].path):
        return max(set.intersection(*(r.restarts() for r in replicas)), default=None)


def _train(replicas: Sequence[Replica], of: int) -> None:
    """Train replicas, of `of` in all, and record how each ended."""
    try:
        errors = _train_engines([r.engine for r in replicas], of)
    except (Interrupted, KeyboardInterrupt, SystemExit) as stop:  # SystemExit: a launcher that preempts the job
        _finish(replicas, "interrupted", {}, str(stop) or type(stop).__name__)
        raise
    except BaseException as error:
        memory = out_of_memory(error)
        _finish(replicas, "failed", {}, _memory_advice(error) if memory else told(error))
        if not memory:
            raise
        return
    _finish(replicas, "complete", errors)
    defects = [error for error in errors.values() if not isinstance(error, TrainingError)]
    if len(defects) == len(replicas):  # as of a run alone
        raise defects[0]


def _finish(replicas: Sequence[Replica], status: str, errors: Mapping[int, Exception], message: str = "") -> None:
    """Record how replicas ended, those in `errors` as failed; the trouble of one folder does not keep the others out.

    Raises:
        LetheError: a folder could not be written.
    """
    troubles: list[LetheError] = []
    for i, replica in enumerate(replicas):
        try:
            replica.finish("failed" if i in errors else status, message, errors.get(i))
        except LetheError as error:
            troubles.append(error)
    if troubles:
        raise troubles[0]


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what a disk or the memory refuses before training into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise LetheError(f"Expected {path} to take what a run writes, got {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(_memory_advice(error)) from error


def _train_engines(engines: Sequence[Engine], of: int) -> dict[int, Exception]:
    """Train engines, several of them as one program; returns the errors of those that failed, by position."""
    if len(engines) > 1:
        from cl.population import Population

        population = Population(engines, of=of, keep=False)
        population.run()
        return population.errors
    try:
        engines[0].run()
    except TrainingError as error:
        return {0: error}
    return {}


def _memory_advice(error: BaseException) -> str:
    reason = " ".join(str(error).split())
    advice = "try a smaller training.batch_size, evaluation.batch_size, replicas or learner"
    return f"out of memory: {reason}; {advice}" if reason else f"out of memory; {advice}"


def average(outcomes: Sequence[Outcome]) -> float | None:
    """Return the mean over replicas of `Results.score`; None where a replica failed or is not finite."""
    values = [o.results.score.mean() for o in outcomes if o.status != "failed"]
    mean = float(np.mean(values)) if len(values) == len(outcomes) else np.nan
    return mean if np.isfinite(mean) else None
