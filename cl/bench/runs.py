"""The runs that are measured: split MNIST, MLP 400-400, batches of 128, evaluation after each task, a local tracker."""

import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cl.device import guarantees
from cl.engine import Engine
from cl.evaluator import EvaluationOptions
from cl.learners.base import Learner
from cl.learners.cnn import CNN
from cl.learners.mlp import MLP
from cl.measures.base import Measure
from cl.seeding import seeded
from cl.strategy import Strategy
from cl.streams import TaskStream
from cl.streams.base import Stream
from cl.streams.constructions import Construction, Split
from cl.streams.sources import MNIST
from cl.trackers.base import RunFacts
from cl.trackers.files import Files
from cl.training import TrainingOptions

adam = functools.partial(torch.optim.Adam, lr=0.001, fused=True)


def mnist(root: str, device: torch.device, construction: Construction | None = None, **options: Any) -> TaskStream:
    """Return a stream of MNIST: by default five tasks of two digits, scenario ``task``."""
    return TaskStream(MNIST(), construction or Split(5), root=root, device=device, **{"scenario": "task", **options})


def learner_of(kind: str, stream: Stream) -> Learner:
    """Return an untrained ``mlp`` (400-400), ``small mlp`` (100-100), ``wide mlp`` (800-800) or ``cnn``."""
    info = stream.info
    with seeded(info.seed, "learner"):
        if kind == "cnn":
            return CNN(info.input_shape, info.n_classes)
        units = {"mlp": 400, "small mlp": 100, "wide mlp": 800}[kind]
        return MLP(info.input_shape, info.n_classes, hidden=(units, units))


def engine_of(
    strategy: type[Strategy],
    stream: Stream,
    learner: str = "mlp",
    options: TrainingOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    measures: Sequence[Measure] = (),
    **fields: Any,
) -> Engine:
    """Return a fresh engine; `fields` are the strategy's."""
    with seeded(stream.info.seed, "strategy"):
        made = strategy(learner_of(learner, stream), stream.info, **fields)
    device = stream.test(0).device
    training = options or TrainingOptions(epochs=1, batch_size=128)
    return Engine(made.to(device), stream, adam, training, evaluation or EvaluationOptions(), measures=measures)


def tracked(engine: Engine) -> None:
    """Run an engine with the local tracker writing into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        tracker = Files()
        tracker.start(RunFacts("bench", "bench", Path(folder), {}, engine.stream.info))
        engine.trackers.append(tracker)
        tracker.finish(engine.run(), "complete")


@contextmanager
def quiet(device: torch.device, threads: int) -> Iterator[None]:
    """Compute with the guarantees of a run."""
    with guarantees(device, threads, deterministic=True):
        yield


def process(command: list[str], clock: str = "wall", environment: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Return the seconds that a command takes, by the clock of `Options`, and what it printed.

    `environment` is added to this process's.

    Raises:
        RuntimeError: it failed.
    """

    def now() -> float:
        return time.perf_counter() if clock == "wall" else sum(os.times()[2:4])  # of processes that have ended

    started = now()
    own = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    if done.returncode != 0:
        raise RuntimeError(f"{command[:4]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return now() - started, done.stdout
