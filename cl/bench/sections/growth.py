"""Time per task and memory as permuted tasks, the replay memory and the width grow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cl.bench.options import Options
from cl.bench.runs import engine_of, mnist, quiet
from cl.bench.table import Row, in_turns
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
            for tasks in (20, 50, 100) if options.full else (20,):
                (many, few), held = side_by_side(options, Case(strategy, tasks), Case(strategy, FEW))
                note = f"strategy holds {held[1]:.2f} and {held[0]:.2f} MiB"
                found.append(Row("growth", f"{name}, a task of {tasks}", f"a task of {FEW}", many, few, 1.1, note=note))
        (large, small), _ = side_by_side(options, *(Case(ER, FEW, {"memory_size": n}) for n in (5000, 200)))
        found.append(Row("growth", "er, 5000 in memory", "200 in memory", large, small))
        for name, strategy in STRATEGIES:
            (wide, usual), _ = side_by_side(options, *(Case(strategy, FEW, learner=n) for n in ("wide mlp", "mlp")))
            found.append(Row("growth", f"{name}, 800 units a layer", "400 units", wide, usual))
    return found


@dataclass(frozen=True)
class Case:
    """What is measured: a strategy with `fields` on so many permuted tasks."""

    strategy: type[Strategy]
    tasks: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    learner: str = "mlp"


def side_by_side(options: Options, *cases: Case) -> tuple[list[list[float]], list[float]]:
    """Return, for each case, the seconds a task of every round, and the MiB the strategy holds beyond the learner."""
    held = [0.0] * len(cases)

    def run(i: int) -> float:
        case = cases[i]
        size = {"samples_per_task": 1280, "test_samples": 64}
        stream = mnist(options.root, options.device, Permuted(case.tasks), scenario="domain", **size)
        training = TrainingOptions(epochs=1, batch_size=128)
        engine = engine_of(case.strategy, stream, case.learner, training, **case.fields)
        engine.evaluate_row(0)
        seconds = 0.0
        for k in range(case.tasks):
            engine.begin(k)
            seconds += options.timed(engine.train) + options.timed(engine.end)
            engine.close()
        held[i] = sum(engine.strategy.stored_bytes().values()) / 2**20
        return seconds / case.tasks

    return in_turns([partial(run, i) for i in range(len(cases))], options.rounds), held
