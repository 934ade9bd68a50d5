"""Time per task and memory as permuted tasks, the replay memory and the width grow."""

from typing import Any

import numpy as np

from cl.bench.options import Options
from cl.bench.runs import engine_of, mnist, quiet
from cl.bench.table import Row
from cl.strategy import Strategy
from cl.streams.constructions import Permuted
from cl.training import TrainingOptions
from strategies.er import ER
from strategies.naive import Naive
from strategies.online_ewc import OnlineEWC

FEW = 5
STRATEGIES: tuple[tuple[str, type[Strategy]], ...] = (("naive", Naive), ("online ewc", OnlineEWC), ("er", ER))


def rows(options: Options) -> list[Row]:
    """Measure training and consolidation of a task, without evaluation, which grows with the tasks by its nature."""
    found = []
    with quiet(options.device, options.threads):
        for name, strategy in STRATEGIES:
            few, few_bytes = per_task(options, strategy, FEW)
            for tasks in (20, 50, 100) if options.full else (20,):
                many, many_bytes = per_task(options, strategy, tasks)
                note = f"strategy holds {few_bytes / 2**20:.2f} and {many_bytes / 2**20:.2f} MiB"
                found.append(Row("growth", f"{name}, a task of {tasks}", f"a task of {FEW}", many, few, 1.1, note=note))
        small, _ = per_task(options, ER, FEW, memory_size=200)
        large, _ = per_task(options, ER, FEW, memory_size=5000)
        found.append(Row("growth", "er, 5000 in memory", "200 in memory", large, small))
    return found


def per_task(options: Options, strategy: type[Strategy], tasks: int, **fields: Any) -> tuple[list[float], int]:
    """Return the seconds a task of every round, and the bytes the strategy holds beyond the learner."""
    stream = mnist(
        options.root, options.device, Permuted(tasks), scenario="domain", samples_per_task=1280, test_samples=64
    )
    seconds = []
    for _ in range(options.rounds):
        engine = engine_of(strategy, stream, options=TrainingOptions(epochs=1, batch_size=128), **fields)
        engine.run()
        seconds.append((engine.seconds["train"] + engine.seconds["consolidate"]) / tasks)
    return [float(np.median(seconds))] * options.rounds, sum(engine.strategy.stored_bytes().values())
